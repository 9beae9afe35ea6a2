"""Which layers share an entry of the latency table."""

import pytest
import torch
from torch import Tensor, nn

from tersely.searching.seeing import calls_in

pytest.importorskip("optuna")


class Repeated(nn.Module):
    """Multiplies again and again; its ``repr`` does not say how often."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.weight = nn.Parameter(torch.eye(4))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = x @ self.weight
        return x


def test_layers_that_differ_in_what_repr_leaves_out_share_no_entry() -> None:
    from tersely.searching.latency_table import _described

    model = nn.Sequential(Repeated(1), Repeated(100), Repeated(1)).eval()
    calls = calls_in(model, ["0", "1", "2"], torch.ones(2, 4))

    once, often, again = (_described(model, (call.module,), [call], ()) for call in calls)

    assert once == again
    assert once != often
