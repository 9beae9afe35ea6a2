"""Layers that read the same tensor, such as query, key and value, which runtimes fuse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

import tersely


def layers_of_one_input(source: tersely.ExportSource, inputs: Any) -> list[tuple[str, ...]]:
    """Return the linear layers of one module that are called with the same tensor.

    This needs no list of names: the model is run once.

    Args:
        source: the session.
        inputs: inputs of the model.

    Returns:
        For each such tensor the full names of its layers, at least two, in the order of their
        calls.
    """
    names: dict[nn.Module, str] = {
        module: name
        for name, module in source.model.named_modules()
        if isinstance(module, nn.Linear)
    }
    called: dict[tuple[str, int], list[str]] = {}
    held: list[Tensor] = []  # an address is not reused while its tensor is alive

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            name = names[module]
            held.append(args[0])
            group = called.setdefault((name.rpartition(".")[0], id(args[0])), [])
            if name not in group:
                group.append(name)

    handles = [module.register_forward_pre_hook(note) for module in names]
    try:
        source.simulate(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return [tuple(group) for group in called.values() if len(group) > 1]


def refused_unlike(
    groups: list[tuple[str, ...]], schemes: Mapping[str, object]
) -> Iterator[tersely.Refusal]:
    """Yield the layers that are quantized differently from those they are fused with.

    Args:
        groups: layers that read the same tensor.
        schemes: how each quantized layer is stored.
    """
    for group in groups:
        first = group[0]
        for other in group[1:]:
            if schemes.get(other) != schemes.get(first):
                yield tersely.Refusal(
                    f"it reads the same tensor as {first} and is quantized differently "
                    f"({_said(schemes.get(other))}, and {first} {_said(schemes.get(first))}); "
                    "runtimes such as vLLM load these layers as one. Quantize them alike, or, "
                    "for transformers alone, set the option unlike_layers to allow",
                    other,
                )


def _said(scheme: object) -> str:
    if not isinstance(scheme, Mapping):
        return "not quantized"
    weights = scheme["weights"]
    kind = weights["strategy"]
    size = f" of {weights['group_size']}" if kind == "group" else ""
    inputs = "" if scheme["input_activations"] is None else " with quantized inputs"
    return f"{weights['num_bits']} bits by {kind}{size}{inputs}"
