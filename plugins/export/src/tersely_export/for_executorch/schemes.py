"""Targets without a kernel in XNNPACK, which ExecuTorch would run slowly or wrongly."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

import tersely
from tersely.contracts import IntegerWeight
from tersely_export.grids import bits_of, grid_of, has_zero_points, refused_numbers
from tersely_export.names import module_of

_MODULES = (nn.Linear, nn.Conv1d, nn.Conv2d)
_FOUR_BITS = 4
_RUN = 32


def refused_weights(source: tersely.ExportSource) -> Iterator[tersely.Refusal]:
    """Yield the quantized weights that XNNPACK does not multiply as integers.

    Args:
        source: the session.
    """
    inputs = {one.module: one for one in source.activations if one.is_input}
    for name, weight in source.integers.items():
        module, target = module_of(source, name), source.targets[name]
        given = inputs.get(target.module)
        if not isinstance(module, _MODULES) or target.target != "weight":
            yield tersely.Refusal(
                "the runtime has integer weights of Linear, Conv1d and Conv2d, and this is "
                f"{target.target} of {type(module).__name__}; leave it out",
                name,
            )
        elif given is None:
            yield tersely.Refusal(
                "the runtime multiplies integers by integers, and would make floats of these at "
                "each call; quantize the layer's input too",
                name,
            )
        else:
            refusal = refused_numbers(name, weight) or _refused_weight(
                name, weight, is_dynamic=given.is_dynamic
            )
            if refusal is not None:
                yield refusal


def _refused_weight(
    name: str, weight: IntegerWeight, *, is_dynamic: bool
) -> tersely.Refusal | None:
    bits, grid = bits_of(weight) or 0, grid_of(weight)
    reason = ""
    if has_zero_points(weight, bits):
        reason = "the runtime has integer weights without zero points; take quant_scheme symmetric"
    elif grid.kind == "group" and (bits != _FOUR_BITS or grid.group % _RUN or not is_dynamic):
        reason = (
            f"the runtime has groups of a multiple of {_RUN} for int4 with inputs by token, and "
            f"this is {weight.qparams.dtype} in {grid}; take int4 and such a group, or granularity "
            "out_channel"
        )
    elif grid.kind not in ("group", "channel") and (is_dynamic or grid.kind != "tensor"):
        reason = f"the runtime has one scale for each output channel, not {grid}; take out_channel"
    elif bits <= _FOUR_BITS and not is_dynamic:
        reason = "the runtime has 8-bit weights with known scales; take int8, or inputs by token"
    return tersely.Refusal(reason, name) if reason else None


def refused_activations(source: tersely.ExportSource) -> Iterator[tersely.Refusal]:
    """Yield the quantized inputs and outputs that XNNPACK does not quantize.

    Args:
        source: the session.
    """
    outputs = {one.module for one in source.activations if not one.is_input}
    weights = {source.targets[name].module for name in source.integers}
    for one in source.activations:
        reason = ""
        module = source.model.get_submodule(one.module)
        if one.dtype not in ("int8", "uint8"):
            reason = f"the runtime rounds to 8 bits, and this is {one.dtype}; take int8"
        elif one.is_dynamic and not (one.is_input and isinstance(module, nn.Linear)):
            reason = (
                "the runtime chooses scales at each call only for inputs of Linear; take ptq, "
                "which observes ranges, or leave it out"
            )
        elif one.is_dynamic and one.blocks != "token":
            reason = (
                "the runtime chooses one scale for each token, and would silently do so here; take "
                "granularity per_token"
            )
        elif not one.is_dynamic and one.blocks != "tensor":
            reason = "the runtime has one known scale for the tensor; take granularity default"
        elif one.module not in weights:
            reason = (
                "the runtime rounds what layers with integer weights read and return; add weight"
            )
        elif one.is_input and not one.is_dynamic and one.module not in outputs:
            reason = (
                "the runtime multiplies inputs with known scales only where the output is rounded "
                "too; add _output_, or take rtn with granularity per_token"
            )
        if reason:
            yield tersely.Refusal(reason, one.name)
