"""Gated experts as linear layers, to which experts that lie in one parameter are compared."""

import torch
from torch import nn
from torch.nn import functional


class LinearExperts(nn.Module):
    """Experts with the matrices of stacked ones, one linear layer a matrix."""

    def __init__(self, stacked):
        super().__init__()
        for name in ("gate_up_proj", "down_proj"):
            weights = getattr(stacked, name).detach()
            layers = [nn.Linear(one.shape[1], one.shape[0], bias=False) for one in weights]
            for layer, weight in zip(layers, weights, strict=True):
                layer.weight.data = weight.clone()
            setattr(self, name, nn.ModuleList(layers))

    def forward(self, x, chosen):
        out = torch.zeros_like(x)
        for expert, (made, down) in enumerate(zip(self.gate_up_proj, self.down_proj, strict=True)):
            rows = chosen == expert
            gate, up = made(x[rows]).chunk(2, -1)
            out[rows] = down(functional.silu(gate) * up)
        return out
