"""Shrinking a transformer that is too large to copy: what it takes beside the model, in layers."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.benchmark

# Peak memory belongs to a process. What a first shrink imports is no part of it.
PROGRAM = """
import torch
from torch import nn
from torch.nn import functional
from tersely.reporting.memory import peak_memory
from tersely.shrinking.proving import outputs
from tersely.shrinking.shrink import shrink_module

outputs._LARGEST_COPY = 0  # as if the model were larger

class Gated(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, inner = nn.LayerNorm(width), 3 * width
        self.gate, self.up = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        inner = self.norm(x)
        return x + self.down(functional.silu(self.gate(inner)) * self.up(inner))

def build(width, depth):
    layers = [Gated(width) for _ in range(depth)]
    return nn.Sequential(nn.Embedding(512, width), *layers, nn.Linear(width, 512)).bfloat16()

def masks(model):
    for name, parameter in model.named_parameters():
        if name.endswith(("gate.weight", "up.weight")):
            yield name, (torch.arange(len(parameter)) % 2 == 0)[:, None].expand(parameter.shape)

def size(module):
    return sum(one.numel() * one.element_size() for one in module.parameters())

tokens = torch.arange(16)[None]
for width, depth in ((64, 2), (1280, 8)):
    torch.manual_seed(0)
    model = build(width, depth)
    layer, before = size(model[1]), size(model)
    kept = dict(masks(model))
    with peak_memory() as peak:
        shrink_module(model, (tokens,), {}, kept)
    assert size(model) < 0.6 * before
print(peak.bytes / layer)
"""


def test_a_large_transformer_shrinks_in_its_own_memory_and_two_layers(record_property):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    )
    found = float(done.stdout)
    record_property("layers", found)
    print(f"{found:.2f} layers beside the model")  # noqa: T201  # the result
    assert found <= 2
