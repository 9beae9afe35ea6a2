"""The check of a written state dict in torchao: integers, layers and outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import tersely
from tersely_export.agreement import compare, tensors_of
from tersely_export.for_onnx.float_products import warn_of_floats
from tersely_export.for_torchao.schemes import as_ours, inputs_of
from tersely_export.grids import bits_of, signed
from tersely_export.names import kept_floats, split_name

_SMALLEST = 1e-4
"""The share of the largest value up to which sums in another order may differ."""

_MOST_ROUNDING = 0.01
"""The share of a weight's largest value by which bfloat16 scales may change it."""

_DEQUANTIZED = (
    "their inputs are rounded to integers all the same; take int8 weights, symmetric, by tensor or "
    "output channel, for products of integers, or leave _input_ out"
)


def check_state(source: tersely.ExportSource, path: Path, *, least_cosine: float) -> dict[str, Any]:
    """Compare a written state dict with the session.

    Args:
        source: the session.
        path: the file.
        least_cosine: the least cosine between outputs, of each layer and of the model.

    Raises:
        ExportError: integers differ, or torchao's outputs differ.
    """
    state = torch.load(path, weights_only=True)
    equal, kinds = 0, Counter[str]()
    for name, weight in source.integers.items():
        held = state[name]
        if not torch.equal(held.qdata, signed(weight, bits_of(weight) or 0)[0].cpu()):
            raise tersely.ExportError("other integers were read back", target=name)
        read, expected = held.dequantize(), weight.dequantize().cpu()
        apart = float((read.double() - expected.double()).abs().max())
        if apart > _MOST_ROUNDING * float(expected.abs().max()):
            raise tersely.ExportError("torchao reads other values of the integers", target=name)
        equal += int(torch.equal(read, expected))
        kinds[type(held).__name__] += 1
    for name in kept_floats(source):
        if not torch.equal(state[name].nan_to_num(), source.floats[name].cpu().nan_to_num()):
            raise tersely.ExportError("another tensor was read back", target=name)
    checks: dict[str, Any] = {
        "integer_weights_equal": len(source.integers),
        "weights_equal": equal,
        "tensors": dict(kinds),
    }
    rounded = inputs_of(source)
    floats = {
        name: _DEQUANTIZED
        for name, weight in source.integers.items()
        if source.targets[name].module in rounded and as_ours(source, name, weight).kind == "intx"
    }
    if floats:
        checks["float_products"] = floats
        warn_of_floats(floats, "torchao")
    if source.example_inputs is not None:
        checks |= _compare_layers(source, state, least_cosine)
    return checks


def _compare_layers(
    source: tersely.ExportSource, state: Mapping[str, Tensor], least_cosine: float
) -> dict[str, Any]:
    # Each layer's output is compared and then replaced by torchao's, so that the model returns
    # what it would with torchao's tensors in all layers.
    errors: dict[str, float] = {}
    expected = tensors_of(source.simulate(source.example_inputs))
    handles = []
    for name in source.integers:
        path = split_name(name)[0]
        module = source.model.get_submodule(path)
        step = _input_step(source, path)
        activate = source.folded_activations.get(path, lambda output: output)

        def replace(
            module: nn.Module,
            args: tuple[Any, ...],
            result: Tensor,
            *,
            path: str = path,
            weight: Tensor = state[name],
            step: Callable[[Tensor], float] = step,
            activate: Callable[[Tensor], Tensor] = activate,
        ) -> Tensor:
            bias = state.get(f"{path}.bias" if path else "bias")
            found = activate(_computed(module, args[0], weight, bias))
            agreement = compare([found], [result], least_cosine=0)
            if agreement["cosine"] < least_cosine:
                raise tersely.ExportError(
                    f"torchao computes something else, a cosine of {agreement['cosine']:.4f}",
                    target=path,
                )
            size = float(result.abs().max())
            near = _SMALLEST * size + 1e-12
            if args[0].is_floating_point():
                near += step(args[0]) * float(weight.dequantize().abs().max())
            errors[path] = max(errors.get(path, 0.0), agreement["largest_difference"] / near)
            return found

        handles.append(module.register_forward_hook(replace))
    try:
        found = tensors_of(source.simulate(source.example_inputs))
    finally:
        for handle in handles:
            handle.remove()
    return {
        "layers_compared": len(errors),
        "layers_within_one_step": sum(one <= 1 for one in errors.values()),
        "largest_error_in_steps": max(errors.values(), default=0.0),
        **compare(found, expected, least_cosine=least_cosine),
    }


def _computed(module: nn.Module, given: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if isinstance(module, nn.Embedding):
        return functional.embedding(given, weight)
    if isinstance(module, nn.Conv2d):
        found: Tensor = module._conv_forward(given, weight, bias)
        return found
    return functional.linear(given, weight, bias)


def _input_step(source: tersely.ExportSource, path: str) -> Callable[[Tensor], float]:
    one = next((a for a in source.activations if a.module == path and a.is_input), None)
    if one is None:
        return lambda given: 0.0
    if one.qparams is not None:
        scale = float(one.qparams.scale.max())
        return lambda given: scale
    levels = one.quant_max - one.quant_min
    return lambda given: float(given.max().clamp_min(0) - given.min().clamp_max(0)) / levels
