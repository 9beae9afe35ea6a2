"""The torchao tensor for each weight, and what no tensor of torchao can hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import attrs
from torch import nn

import tersely
from tersely.contracts import IntegerWeight
from tersely_export.grids import Grid, bits_of, grid_of, has_zero_points, refused_numbers
from tersely_export.names import module_of

_MODULES = (nn.Linear, nn.Conv2d, nn.Embedding)
_EIGHT_BITS = 8


@attrs.frozen(eq=False)
class TorchaoWeight:
    """A weight and the kind of tensor that holds it.

    Attributes:
        weight: the weight as integers.
        bits: the bits of an integer.
        grid: the parts that share a scale.
        kind: ``int8`` (`Int8Tensor`, multiplied as integers if inputs are quantized) or ``intx``
            (`IntxUnpackedToInt8Tensor`, dequantized on use).
    """

    weight: IntegerWeight
    bits: int
    grid: Grid
    kind: Literal["int8", "intx"]


def as_ours(source: tersely.ExportSource, name: str, weight: IntegerWeight) -> TorchaoWeight:
    """Return a weight with the kind of tensor that holds it.

    Args:
        source: a session without refusals.
        name: the weight's full name.
        weight: the weight as integers.
    """
    bits, grid = bits_of(weight) or 0, grid_of(weight)
    is_matrix = not isinstance(module_of(source, name), nn.Conv2d)
    is_int8 = (
        bits == _EIGHT_BITS
        and is_matrix
        and grid.kind in ("tensor", "channel")
        and not has_zero_points(weight, bits)
    )
    return TorchaoWeight(weight, bits, grid, "int8" if is_int8 else "intx")


def inputs_of(source: tersely.ExportSource) -> Mapping[str, tersely.QuantizedActivation]:
    """Return the quantized inputs by module.

    Args:
        source: the session.
    """
    return {one.module: one for one in source.activations if one.is_input}


def static_inputs(source: tersely.ExportSource) -> list[tersely.QuantizedActivation]:
    """Return the quantized inputs whose scale was chosen in calibration.

    Args:
        source: the session.
    """
    return [one for one in source.activations if one.is_input and not one.is_dynamic]


def refused_weights(source: tersely.ExportSource) -> Iterator[tersely.Refusal]:
    """Yield the quantized weights for which torchao has no tensor.

    Args:
        source: the session.
    """
    for name, weight in source.integers.items():
        module, own = module_of(source, name), source.targets[name].target
        if not isinstance(module, _MODULES) or own != "weight":
            yield tersely.Refusal(
                "torchao's tensors are weights of Linear, Conv2d and Embedding, and this is "
                f"{own} of {type(module).__name__}; leave it out, or export to onnx or safetensors",
                name,
            )
            continue
        refusal = refused_numbers(name, weight)
        if refusal is not None:
            yield refusal


def refused_activations(source: tersely.ExportSource) -> Iterator[tersely.Refusal]:
    """Yield the quantized inputs and outputs that torchao's tensors do not quantize.

    Args:
        source: the session.
    """
    weights = {source.targets[name].module: name for name in source.integers}
    for one in source.activations:
        name = weights.get(one.module)
        if not one.is_input:
            reason = "torchao rounds inputs of layers; leave outputs out"
        elif name is None or not isinstance(module_of(source, name), nn.Linear):
            reason = "torchao rounds inputs of Linear layers with a quantized weight; leave it out"
        elif one.dtype not in ("int8", "uint8"):
            reason = f"torchao rounds inputs to 8 bits, and this is {one.dtype}; take int8"
        elif one.blocks not in ("tensor", "token") or (
            one.blocks == "token" and not one.is_dynamic
        ):
            reason = (
                "torchao has one scale for the tensor, or one for each token of a call; take "
                "granularity default, or per_token with rtn"
            )
        else:
            reason = _refused_pair(source, name, one)
        if reason:
            yield tersely.Refusal(reason, one.name)


def _refused_pair(source: tersely.ExportSource, name: str, one: tersely.QuantizedActivation) -> str:
    weight = source.integers[name]
    if refused_numbers(name, weight) is not None or as_ours(source, name, weight).kind == "int8":
        return ""
    if one.is_dynamic and one.blocks == "token" and one.scheme == "affine":
        return ""
    return (
        f"torchao rounds inputs beside a weight of {weight.qparams.dtype} with {grid_of(weight)} "
        "by token, affine, at each call alone; take that, or int8 weights, symmetric, by tensor "
        "or output channel"
    )
