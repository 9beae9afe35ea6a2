"""Making torchao's tensors from integers and scales."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchao.quantization import (
    Int8Tensor,
    IntxUnpackedToInt8Tensor,
    MappingType,
    PerRow,
    PerTensor,
)
from torchao.quantization.quantize_.workflows import QuantizeTensorToInt8Kwargs
from torchao.quantization.quantize_.workflows.intx.intx_unpacked_to_int8_tensor import (
    IntxUnpackedToInt8TensorActivationQuantization,
)

import tersely
from tersely_export.for_torchao.schemes import TorchaoWeight, inputs_of
from tersely_export.grids import signed

_HALF = 128


def dimensions_of_inputs(source: tersely.ExportSource) -> Mapping[str, int]:
    """Return the number of dimensions of each quantized input, by module; runs the model once.

    Args:
        source: the session.
    """
    found: dict[str, int] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            found[name] = args[0].ndim

        return hook

    handles = [
        source.model.get_submodule(name).register_forward_pre_hook(note(name))
        for name in inputs_of(source)
    ]
    try:
        source.simulate(source.example_inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def make_tensor(
    ours: TorchaoWeight, given: tersely.QuantizedActivation | None, dimensions: int
) -> Tensor:
    """Return a weight as a tensor of torchao.

    Args:
        ours: the weight and the kind of tensor.
        given: how the layer's input is quantized, or None.
        dimensions: the input's number of dimensions, if its scale is fixed.
    """
    weight = ours.weight
    values, zero_point = signed(weight, ours.bits)
    counts = [whole // one for whole, one in zip(values.shape, ours.grid.size, strict=True)]
    scale = weight.qparams.scale.float().reshape(counts)
    made: Tensor
    if ours.kind == "intx":
        is_rounded = IntxUnpackedToInt8TensorActivationQuantization.INT8_ASYM_PER_TOKEN
        made = IntxUnpackedToInt8Tensor(
            values.contiguous(),
            scale,
            zero_point.reshape(counts),
            target_dtype=getattr(torch, f"int{ours.bits}"),
            block_size=ours.grid.size,
            dtype=weight.dtype,
            activation_quantization=None if given is None else is_rounded,
        )
    else:
        options = {} if given is None else _input_options(given, dimensions)
        made = Int8Tensor(values.contiguous(), scale, list(ours.grid.size), weight.dtype, **options)
    return made


def _input_options(one: tersely.QuantizedActivation, dimensions: int) -> dict[str, Any]:
    is_affine = one.scheme == "affine"
    options: dict[str, Any] = {
        "act_quant_kwargs": QuantizeTensorToInt8Kwargs(
            granularity=PerRow() if one.blocks == "token" else PerTensor(),
            mapping_type=MappingType.ASYMMETRIC if is_affine else MappingType.SYMMETRIC,
        )
    }
    if one.qparams is not None:
        shape = (1,) * dimensions
        shift = _HALF if one.quant_min >= 0 else 0
        zero_point = one.qparams.zero_point.reshape(shape).to(torch.int16) - shift
        options["act_quant_scale"] = one.qparams.scale.float().reshape(shape)
        options["act_quant_zero_point"] = zero_point.to(torch.int8) if is_affine else None
    return options
