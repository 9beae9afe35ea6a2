"""Prunes a model of square layers by magnitude, all at once, and prints what that cost, as JSON.

Run as ``whole_model.py WAY LAYERS WIDTH`` in a process of its own, since peak memory belongs to a
process: tersely, kthvalue (the least that a global budget takes without tersely), or torch.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import prune

import tersely

RATIO = 0.5
ENTRY = {
    "op_types": ["Linear"],
    "target_names": ["weight"],
    "sparse_ratio": RATIO,
    "global_group_id": "all",
}


def build(layers: int, width: int) -> nn.Module:
    """A model with weights of several widths of distribution, as trained ones have."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential()
    for number in range(layers):
        with torch.device("meta"):
            layer = nn.Linear(width, width, bias=False)
        weight = torch.empty(width, width).normal_(0, 1 + number % 4, generator=generator)
        layer.weight = nn.Parameter(weight)
        model.append(layer)
    return model


def by_tersely(model: nn.Module) -> list[torch.Tensor]:
    """Select, make masks and put them in force, through the public interface."""
    tersely.prune(model, [ENTRY], algorithm="level")
    return [buffer for name, buffer in model.named_buffers() if name.endswith("weight_mask")]


def by_kthvalue(model: nn.Module) -> list[torch.Tensor]:
    """Concatenate, take one kth value, compare; nothing puts the masks in force."""
    weights = [layer.weight.detach() for layer in model]
    everything = torch.cat([weight.abs().flatten() for weight in weights])
    limit = everything.kthvalue(int(RATIO * everything.numel())).values
    return [(weight.abs() > limit).to(weight.dtype) for weight in weights]


def by_torch(model: nn.Module) -> list[torch.Tensor]:
    """What PyTorch has for it."""
    pairs = [(layer, "weight") for layer in model]
    prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=RATIO)
    return [layer.weight_mask for layer in model]


WAYS: dict[str, Callable[[nn.Module], list[torch.Tensor]]] = {
    "tersely": by_tersely,
    "kthvalue": by_kthvalue,
    "torch": by_torch,
}


def memory(field: str) -> int:
    """Bytes of this process by the kernel's account: VmRSS now, VmHWM the most since a reset."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.search(rf"{field}:\s+(\d+) kB", text)[1])


def main() -> None:
    """Measure one way once."""
    way, layers, width = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    # Threads that wait for each other would count as processor time.
    torch.set_num_threads(1)
    # Imports and caches of a first call are no part of it.
    WAYS[way](build(2, 8))
    model = build(layers, width)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    start, wall = time.process_time(), time.perf_counter()
    masks = WAYS[way](model)
    spent, passed = time.process_time() - start, time.perf_counter() - wall
    result = sum(mask.numel() * mask.element_size() for mask in masks)
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    found = {
        "seconds": spent,
        "wall": passed,
        "weights": weights,
        "masks": result,
        "extra": memory("VmHWM") - before - result,
        "kept": sum(int(mask.count_nonzero()) for mask in masks),
        "elements": sum(mask.numel() for mask in masks),
    }
    print(json.dumps(found))  # noqa: T201  # read by the benchmark


if __name__ == "__main__":
    main()
