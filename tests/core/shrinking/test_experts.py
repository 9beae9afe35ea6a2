"""Experts that are stacked in one weight lose the hidden units that are masked in all of them."""

import torch
from torch import nn
from torch.nn import functional

from tersely.shrinking.shrink import shrink_module

EXPERTS, WIDTH, HIDDEN = 2, 16, 32


class Experts(nn.Module):
    """The first rows go to the first expert: gated units, as in Mixtral."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.gate_up = nn.Parameter(torch.randn(EXPERTS, 2 * HIDDEN, WIDTH) / 4)
        self.down = nn.Parameter(torch.randn(EXPERTS, WIDTH, HIDDEN) / 4)
        self.head = nn.Linear(WIDTH, 3)
        self.register_buffer("ends", torch.tensor([3, 8], dtype=torch.int32))
        self.bfloat16()  # torch exports grouped_mm of these alone

    def forward(self, x):
        wide = functional.grouped_mm(x, self.gate_up.transpose(1, 2), offs=self.ends)
        gate, up = wide.chunk(2, -1)
        inner = functional.silu(gate) * up
        return self.head(functional.grouped_mm(inner, self.down.transpose(1, 2), offs=self.ends))


def by_hand(model, x, kept):
    parts = []
    for expert, rows in enumerate((x[:3], x[3:])):
        gate, up = (rows @ (model.gate_up[expert] * kept[expert]).T).chunk(2, -1)
        parts.append((functional.silu(gate) * up) @ model.down[expert].T)
    return model.head(torch.cat(parts))


def masked(units):
    """Masks of gates and values, the same or others in each expert."""
    return torch.stack([one.repeat(2)[:, None].expand(2 * HIDDEN, WIDTH) for one in units])


def half(first):
    kept = torch.zeros(HIDDEN, dtype=torch.bool)
    kept[first::2] = True
    return kept


X = torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(0)).bfloat16()


def test_units_that_are_masked_in_all_experts_go():
    model = Experts()
    kept = masked([half(0), half(0)])
    expected = by_hand(model, X, kept)

    found = shrink_module(model, (X,), {}, {"gate_up": kept})

    assert model.gate_up.shape == (EXPERTS, HIDDEN, WIDTH)
    assert model.down.shape == (EXPERTS, WIDTH, HIDDEN // 2)
    assert found.stays == ()
    torch.testing.assert_close(model(X), expected, rtol=0.05, atol=0.02)


def test_columns_of_all_experts_that_are_masked_take_their_units_along():
    model = Experts()
    columns = half(0).expand(EXPERTS, WIDTH, HIDDEN)

    shrink_module(model, (X,), {}, {"down": columns})

    assert model.gate_up.shape == (EXPERTS, HIDDEN, WIDTH)


def test_units_that_one_expert_needs_stay():
    model = Experts()

    found = shrink_module(model, (X,), {}, {"gate_up": masked([half(0), half(1)])})

    assert found.cuts == {}


def test_an_expert_that_is_masked_whole_stays_since_the_input_chooses():
    model = Experts()
    kept = masked([torch.zeros(HIDDEN, dtype=torch.bool), torch.ones(HIDDEN, dtype=torch.bool)])

    found = shrink_module(model, (X,), {}, {"gate_up": kept})

    assert found.cuts == {}
    assert [(one.reason, one.hint) for one in found.stays] == [
        (
            "the input chooses experts (_grouped_mm of the model)",
            "mask the same rows in all experts, with granularity: [-1, 1, -1]",
        )
    ]
