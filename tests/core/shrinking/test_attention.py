"""Attention modules and stacked experts keep their sizes, and say what would free them."""

import torch
from torch import nn

from tersely.shrinking.report import hint_for
from tersely.shrinking.shrink import shrink_module

X = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.up, self.down = nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.attention(x, x, x, need_weights=False)[0]
        return self.down(self.up(x).relu())


def test_heads_of_an_attention_module_stay_and_the_rest_shrinks():
    torch.manual_seed(0)
    model = Attending().eval()
    heads = torch.ones(3, 16, 16, dtype=torch.bool)
    heads[:, 4:8] = False
    units = torch.ones(8, 16, dtype=torch.bool)
    units[::2] = False
    with torch.no_grad():
        model.up.bias[::2] = 0
    kept = {"attention.in_proj_weight": heads.flatten(0, 1), "up.weight": units}

    found = shrink_module(model, (X,), {}, kept)

    assert tuple(model.up.weight.shape) == (4, 16)
    [stay] = [one for one in found.stays if one.target == "attention.in_proj_weight"]
    assert (stay.count, stay.reason) == (12, "torch.nn.MultiheadAttention insists on its width")
    assert stay.hint == "write it as separate projections and scaled_dot_product_attention"


def test_stacked_experts_have_a_hint():
    reason = "there is no rule for the operator grouped_mm_fallback"

    assert hint_for(reason) == "leave stacked experts out, or ask for a pattern such as 2:4"
