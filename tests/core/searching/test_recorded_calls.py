"""What a unit's modules are called with: copies, in order, and None where nobody calls them."""

from typing import Any

import torch
from torch import Tensor, nn

from tersely.searching.recorded_calls import replay, see


def test_calls_are_repeated_in_order_with_what_they_were_called_with(build: Any) -> None:
    model = build()
    batch = torch.ones(1, 4)

    (seen,) = see(model, ["2", "0"], [batch])

    assert [call.module for call in seen.calls] == ["0", "2"]
    assert torch.equal(seen.calls[1].args[0], model[0](batch).relu())
    called: list[Tensor] = []
    model[2].register_forward_hook(lambda _, __, output: called.append(output))
    replay(model, seen)
    assert torch.equal(called[0], model(batch))


def test_an_input_that_is_written_into_afterwards_is_kept_as_it_was() -> None:
    class Writer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, values: Tensor) -> Tensor:
            found = self.layer(values)
            values.zero_()
            return found

    (seen,) = see(Writer(), ["layer"], [torch.ones(1, 2)])

    assert seen.calls[0].args[0].tolist() == [[1, 1]]


def test_a_module_inside_another_of_the_unit_is_called_by_it_alone(build: Any) -> None:
    model = nn.Sequential(build())

    (seen,) = see(model, ["0", "0.0"], [torch.ones(1, 4)])

    assert [call.module for call in seen.calls] == ["0"]


def test_a_module_that_is_not_called_cannot_be_seen() -> None:
    attention = nn.MultiheadAttention(4, 2, batch_first=True).eval()

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, values: Tensor) -> Tensor:
            return self.attention(values, values, values)[0]

    assert see(Reader(), ["attention.out_proj"], [torch.ones(1, 3, 4)]) is None
