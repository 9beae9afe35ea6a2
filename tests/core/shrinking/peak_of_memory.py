"""Prints how many layers' memory shrinking a large transformer takes beside the model (Linux)."""

import ctypes
import gc
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from tersely.shrinking.proving import outputs
from tersely.shrinking.shrink import shrink_module

HEADS = 4


class Layer(nn.Module):
    """Attention and a gated unit, of which half is masked.

    Only one of two numbers of heads follows, so that the small model does not run at first.
    """

    def __init__(self, width, hidden):
        super().__init__()
        self.heads, self.most_heads = HEADS, HEADS
        self.norms = nn.ModuleList([nn.RMSNorm(width), nn.RMSNorm(width)])
        self.query, self.key, self.value, self.out = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.gate, self.up = (
            nn.Linear(width, hidden, bias=False),
            nn.Linear(width, hidden, bias=False),
        )
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        y = self.norms[0](x)
        heads = (
            one(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for one in (self.query, self.key, self.value)
        )
        x = x + self.out(functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
        y = self.norms[1](x) * (self.most_heads / HEADS)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class Language(nn.Module):
    def __init__(self, width, hidden, layers):
        super().__init__()
        self.words = nn.Embedding(50, width)
        self.layers = nn.Sequential(*(Layer(width, hidden) for _ in range(layers)))

    def forward(self, words):
        return functional.linear(self.layers(self.words(words)), self.words.weight)


def halves(model):
    """Masks of every other row of the units, and of every other head."""
    found = {}
    for number, layer in enumerate(model.layers):
        for name, blocks in (("up", 0), ("query", HEADS), ("key", HEADS), ("value", HEADS)):
            weight = getattr(layer, name).weight
            size = len(weight) // blocks if blocks else 1
            rows = torch.arange(len(weight)) // size % 2 == 0
            found[f"layers.{number}.{name}.weight"] = rows[:, None].expand(weight.shape)
    return found


def status(field):
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def main():
    torch.set_num_threads(1)
    outputs._LARGEST_COPY = 0
    words = torch.randint(0, 50, (1, 9), generator=torch.Generator().manual_seed(0))
    small = Language(64, 128, 1).eval()
    shrink_module(small, (words,), {}, halves(small))  # what is imported is no part of the peak
    model = Language(1024, 4096, 6).eval()
    masks = halves(model)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forgets the peak so far
    shrink_module(model, (words,), {}, masks)
    layer = 4 * (4 * 1024 * 1024 + 3 * 1024 * 4096)
    sys.stdout.write(f"{(status('VmHWM') - before) / layer}\n")


main()
