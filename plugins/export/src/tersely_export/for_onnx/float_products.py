"""Products with integer weights that onnxruntime computes in floats, and what would change that."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy
from torch import nn

import tersely
from tersely.contracts import IntegerWeight
from tersely_export.grids import grid_of
from tersely_export.names import module_of

if TYPE_CHECKING:
    import onnx  # also used by torchao's check, which needs no ONNX

_PRODUCTS: Final = ("MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum")
"""Suffixes of operators that multiply floats; onnxruntime adds prefixes such as Fused."""

_RECURRENT: Final = ("LSTM", "GRU", "RNN")
_TURNS: Final = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Cast", "Slice", "Div")
_RUNS: Final = (16, 32, 64, 128, 256)
_TRANSPOSED: Final = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NO_KERNEL: Final = "it found no integer kernel for them; leave them out where their time matters"
_INPUTS: Final = "their inputs are not quantized; quantize _input_ as well, as the preset w8a8 does"
_MOST_BITS, _SHOWN = 8, 5
_BLOCKS: Final = "MatMulNBits"
_WIDE: Final = (4, 5, 6)
"""ONNX's numbers of uint16, int16 and int32."""


def float_products(source: tersely.ExportSource, optimized: onnx.ModelProto) -> Mapping[str, str]:
    """Return the quantized weights whose products are computed in floats.

    Args:
        source: the session.
        optimized: the written model after onnxruntime's optimization.

    Returns:
        Full name of the weight -> why, and what to change.
    """
    graph = optimized.graph
    found = dict.fromkeys(_read_as_floats(graph, source.integers))
    if products_of_wide_inputs(graph):
        found |= dict.fromkeys(name for name in source.integers if _wide_inputs(source, name))
    return {name: _reason(source, name) for name in found}


def products_of_wide_inputs(graph: onnx.GraphProto) -> int:
    """Return the number of products of blocks of few bits with inputs of more than 8 bits.

    Their kernel reads such inputs as floats, and rounds them differently or not at all.

    Args:
        graph: a model after onnxruntime's optimization.
    """
    makers = {name: node for node in graph.node for name in node.output}
    types = {one.name: one.data_type for one in graph.initializer}
    read = (makers.get(node.input[0]) for node in graph.node if node.op_type == _BLOCKS)
    return sum(
        node is not None
        and node.op_type == "DequantizeLinear"
        and any(types.get(name) in _WIDE for name in node.input)
        for node in read
    )


def warn_of_floats(found: Mapping[str, str], runtime: str) -> None:
    """Warn of products in floats, with one warning for each reason.

    Args:
        found: full name of each weight -> why, and what to change.
        runtime: the runtime's name.
    """
    by_reason: dict[str, list[str]] = {}
    for name, reason in found.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        warnings.warn(
            f"{runtime} dequantizes these weights at each call and multiplies floats: "
            f"{', '.join(names[:_SHOWN])}{more}; {reason}",
            tersely.CompressionWarning,
            stacklevel=2,
        )


def _read_as_floats(graph: onnx.GraphProto, weights: Mapping[str, IntegerWeight]) -> Iterator[str]:
    """Yield the names of stored integers that are dequantized for a product."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    held = {one.name: one for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and _is_multiplied(node.output[0], readers):
            stored = _stored(node.input[0], graph, held)
            if stored is not None:
                yield from [stored] if stored in weights else _same(held[stored], held, weights)


def _stored(value: str, graph: onnx.GraphProto, held: Mapping[str, object]) -> str | None:
    if value in held:
        return value
    maker = next((node for node in graph.node if value in node.output), None)
    turned = maker is not None and maker.op_type in _TURNS
    return _stored(maker.input[0], graph, held) if maker is not None and turned else None


def _same(
    stored: onnx.TensorProto, held: Mapping[str, object], weights: Mapping[str, IntegerWeight]
) -> Iterator[str]:
    """Yield the weight that onnxruntime has stored in another order under another name."""
    from onnx import TensorProto, numpy_helper  # late, as above

    if stored.data_location == TensorProto.EXTERNAL:
        return
    values = numpy.sort(numpy_helper.to_array(stored), axis=None)
    for name in weights:
        if name not in held:
            found = weights[name].values.cpu().numpy()
            if found.size == values.size and (numpy.sort(found, axis=None) == values).all():
                yield name


def _is_multiplied(
    value: str, readers: Mapping[str, Sequence[onnx.NodeProto]], *, is_joined: bool = False
) -> bool:
    return any(
        _is_multiplied(node.output[0], readers, is_joined=is_joined or node.op_type == "Concat")
        if node.op_type in (*_TURNS, "Concat")
        else _multiplies(node, value, is_joined=is_joined)
        for node in readers.get(value, ())
    )


def _multiplies(node: onnx.NodeProto, value: str, *, is_joined: bool) -> bool:
    if node.op_type in _RECURRENT:
        return value in node.input[1:3]  # the first is the data
    # Gates are concatenated from parts of one weight; other concatenations may be data.
    return node.op_type.endswith(_PRODUCTS) and not is_joined


def _reason(source: tersely.ExportSource, name: str) -> str:
    weight, module = source.integers[name], module_of(source, name)
    own = [one for one in source.activations if one.module == source.targets[name].module]
    if weight.qparams.quant_max - weight.qparams.quant_min >= 2**_MOST_BITS:
        return f"it has no kernel for {weight.qparams.dtype}; take int8, or int4 in groups"
    if weight.divides_weight:
        return "they are divided by the factors of their inputs at each call; call finalize() first"
    if isinstance(module, nn.RNNBase):
        return "it has no integer kernel for recurrent layers with such weights; leave them out"
    if isinstance(module, _TRANSPOSED):
        return "it has no integer kernel for transposed convolutions; leave them out"
    if isinstance(module, nn.Linear):
        return _reason_of_matrix(weight, own)
    return _reason_of_convolution(own) if isinstance(module, _CONVOLUTIONS) else _NO_KERNEL


def _reason_of_matrix(weight: IntegerWeight, own: Sequence[tersely.QuantizedActivation]) -> str:
    size = grid_of(weight).size
    if size[1] not in (1, weight.values.shape[1], *_RUNS):
        runs = ", ".join(map(str, _RUNS))
        return f"it has a kernel for groups of {runs}, and these have {size[1]}"
    wide = _wide(own)
    if wide:
        return f"it multiplies no inputs of {wide[0]}; take uint8 for _input_"
    return "it found no integer kernel for them; take the preset w8a8 or w8a8_dynamic"


def _wide_inputs(source: tersely.ExportSource, name: str) -> list[str]:
    """Return the types of more than 8 bits among the inputs of a weight's module."""
    module = source.targets[name].module
    return _wide([one for one in source.activations if one.module == module])


def _wide(own: Sequence[tersely.QuantizedActivation]) -> list[str]:
    return [
        one.dtype for one in own if one.is_input and one.quant_max - one.quant_min >= 2**_MOST_BITS
    ]


def _reason_of_convolution(own: Sequence[tersely.QuantizedActivation]) -> str:
    if not any(one.is_input for one in own):
        return _INPUTS
    if any(one.is_dynamic for one in own):
        return (
            "it convolves integers whose range calibration has observed; take ptq for _input_, or "
            "the preset w8a8"
        )
    if all(one.is_input for one in own):
        return (
            "it convolves integers where outputs are quantized, too; quantize _output_ of the "
            "convolution or of the activation after it, as the preset w8a8 for onnxruntime does "
            "(OpenVINO needs no outputs)"
        )
    return _NO_KERNEL
