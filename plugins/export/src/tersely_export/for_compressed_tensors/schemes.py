"""How a layer is quantized in the terms of compressed-tensors, and what it cannot express."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import attrs
from torch import nn

import tersely
from tersely.contracts import IntegerWeight
from tersely_export.grids import bits_of, grid_of, has_zero_points, refused_numbers
from tersely_export.names import module_of, split_name

FLOAT8 = "float8_e4m3fn"
_EIGHT_BITS = 8
_PACKED = ("group", "channel")


@attrs.frozen
class Layer:
    """How one layer is stored.

    Attributes:
        module: its full name.
        format: the name of the layout of its weight.
        weights: the quantization arguments of its weight.
        inputs: the quantization arguments of its input, or None if that is not quantized.
    """

    module: str
    format: str
    weights: Mapping[str, object]
    inputs: Mapping[str, object] | None

    @property
    def scheme(self) -> dict[str, object]:
        """Everything but the name, as in a group of the configuration."""
        inputs = None if self.inputs is None else dict(self.inputs)
        return {
            "format": self.format,
            "weights": dict(self.weights),
            "input_activations": inputs,
            "output_activations": None,
        }


def layers_of(source: tersely.ExportSource) -> list[Layer]:
    """Return how each quantized layer is stored.

    Args:
        source: a session without refusals.
    """
    inputs = {one.module: _input_arguments(one) for one in source.activations}
    found = []
    for name, weight in source.integers.items():
        module, _ = split_name(name)
        given = inputs.get(module)
        found.append(
            Layer(module, _format(weight, has_inputs=given is not None), _weight(weight), given)
        )
    return found


def _format(weight: IntegerWeight, *, has_inputs: bool) -> str:
    bits = bits_of(weight)
    if bits is None:
        return "float-quantized"
    if grid_of(weight).kind not in _PACKED:
        return "int-quantized"
    return "int-quantized" if bits == _EIGHT_BITS and has_inputs else "pack-quantized"


def _weight(weight: IntegerWeight) -> dict[str, object]:
    bits, grid = bits_of(weight), grid_of(weight)
    found: dict[str, object] = {
        "num_bits": bits or _EIGHT_BITS,
        "type": "int" if bits else "float",
        "symmetric": not bits or not has_zero_points(weight, bits),
        "strategy": grid.kind,
        "dynamic": False,
    }
    if grid.kind == "group":
        found["group_size"] = grid.group
    if grid.kind == "block":
        found["block_structure"] = list(grid.size)
    return found


def _input_arguments(one: tersely.QuantizedActivation) -> dict[str, object]:
    return {
        "num_bits": _EIGHT_BITS,
        "type": "float" if one.dtype == FLOAT8 else "int",
        "symmetric": one.scheme == "symmetric",
        "strategy": one.blocks,
        "dynamic": one.is_dynamic,
    }


def groups_of(layers: Sequence[Layer]) -> dict[str, dict[str, object]]:
    """Return the configuration's groups of layers that are stored the same way.

    Args:
        layers: how each quantized layer is stored.
    """
    groups: list[tuple[dict[str, object], list[object]]] = []
    for layer in layers:
        for scheme, targets in groups:
            if scheme == layer.scheme:
                targets.append(layer.module)
                break
        else:
            groups.append((layer.scheme, [layer.module]))
    return {
        f"group_{index}": {"targets": targets, **scheme}
        for index, (scheme, targets) in enumerate(groups)
    }


def refused_weights(source: tersely.ExportSource) -> Iterator[tersely.Refusal]:
    """Yield the quantized weights that the format cannot hold.

    Args:
        source: the session.
    """
    for name, weight in source.integers.items():
        module = module_of(source, name)
        own = source.targets[name].target
        if not isinstance(module, nn.Linear) or own != "weight":
            yield tersely.Refusal(
                f"the format holds weights of Linear layers, and this is {own} of "
                f"{type(module).__name__}; leave it out, or export to onnx or safetensors",
                name,
            )
        elif source.targets[name].shared_with:
            others = ", ".join(source.targets[name].shared_with)
            yield tersely.Refusal(
                f"it is tied to {others}, which the format stores once and as floats; leave the "
                "layer out with exclude_op_names",
                name,
            )
        else:
            refusal = _refused_weight(name, weight)
            if refusal is not None:
                yield refusal


def _refused_weight(name: str, weight: IntegerWeight) -> tersely.Refusal | None:
    if weight.qparams.dtype == FLOAT8:
        if grid_of(weight).kind in ("tensor", "channel", "block"):
            return None
        return tersely.Refusal(
            "the format has float8 by tensor, by output channel or in blocks, not in "
            f"{grid_of(weight)}; take granularity out_channel",
            name,
        )
    refusal = refused_numbers(name, weight)
    if refusal is not None:
        return refusal
    bits, grid = bits_of(weight) or 0, grid_of(weight)
    if grid.kind == "other" or (grid.kind in ("tensor", "block") and bits < _EIGHT_BITS):
        return tersely.Refusal(
            f"the format packs {weight.qparams.dtype} by output channel or in groups along the "
            f"input, not with {grid}; take granularity out_channel, or a group such as 128",
            name,
        )
    return None


def refused_activations(source: tersely.ExportSource) -> Iterator[tersely.Refusal]:
    """Yield the quantized inputs and outputs that the format cannot express.

    Args:
        source: the session.
    """
    weights = {split_name(name)[0] for name in source.integers}
    for one in source.activations:
        reason = _refused_activation(one, has_weight=one.module in weights)
        if reason is not None:
            yield tersely.Refusal(reason, one.name)


def _refused_activation(one: tersely.QuantizedActivation, *, has_weight: bool) -> str | None:
    levels = one.quant_max - one.quant_min + 1
    if not one.is_input:
        return "the format's runtimes quantize inputs of layers; leave outputs out"
    if not has_weight:
        return "the format quantizes the input of a layer whose weight is quantized; add weight"
    if one.dtype != FLOAT8 and levels not in (1 << _EIGHT_BITS, (1 << _EIGHT_BITS) - 1):
        return f"the format's runtimes have inputs of 8 bits, and this is {one.dtype}; take uint8"
    if one.blocks not in ("tensor", "token") or (one.blocks == "token" and not one.is_dynamic):
        return (
            "the format has one scale for the tensor, or one for each token of a call; take "
            "granularity default, or rtn with per_token"
        )
    return None
