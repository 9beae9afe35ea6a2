"""Readers: operators that sum over positions, and the conditions under which a position is removed.

A position is removed if the reader's weights there are zero, or if the value there is zero or a
constant that the reader's bias takes over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import torch
from torch import Tensor

from tersely.shrinking.graph.flow import Absorbed, Flow, Read, Seen, Trace, settle
from tersely.shrinking.graph.labels import Layer, varying


def vector(trace: Trace, flow: Flow, dim: int) -> Layer:
    """Return one label for each position along a dimension; everything else is tied.

    Args:
        trace: the walk.
        flow: the tensor.
        dim: the dimension, not negative.

    Returns:
        Shape (positions,), zeros for positions that stay.
    """
    layer = trace.labels.joined([x for x in flow.layers if x.shape[dim] > 1])
    if layer is None:
        return torch.zeros(flow.shape[dim], dtype=torch.int64)
    others = [d for d in range(flow.ndim) if d != dim]
    return trace.labels.tie_along(layer, others).reshape(-1)


def tie_columns(trace: Trace, what: str, positions: Layer, columns: Layer) -> None:
    """Tie columns of a weight with the positions that they read.

    Args:
        trace: the walk.
        what: the reader, for reasons.
        positions: labels of the positions; 0 for those that stay.
        columns: labels of the weight's columns, equally many.
    """
    fixed = columns[positions == 0]
    if bool(fixed.any()):
        trace.labels.pin(fixed, f"{what} reads an input of the model there, or what stays whole")
    trace.labels.tie(positions, columns)


def values_along(flow: Flow, dim: int) -> Tensor:
    """Return the constant at each position along a dimension, NaN where there is none.

    Args:
        flow: the tensor.
        dim: the dimension, not negative.

    Returns:
        float64, shape (positions,).
    """
    known = flow.known().movedim(dim, 0)
    known = known.reshape(len(known), -1)
    same = (known == known[:, :1]).all(1)
    held = torch.where(same, known[:, 0], torch.nan)
    return held.expand(flow.shape[dim]).clone()


def held_by_all_keys(constant: Tensor | None) -> Tensor | None:
    """Return values that are equal along the second last dimension, as are weighted means of them.

    Args:
        constant: float64 with at least two dimensions, NaN where it is unknown; or None.

    Returns:
        Size 1 along that dimension, NaN where values differ; None if all differ.
    """
    if constant is None:
        return None
    first = constant.narrow(-2, 0, 1)
    return settle(torch.where((constant == first).all(-2, keepdim=True), first, torch.nan))


_AVERAGING = frozenset(["mean", "amax", "amin", "max", "min", "median"])
"""Reductions that return a value which all positions have, however many there are."""


def whatever_the_count(x: Flow, dims: Sequence[int], name: str) -> Flow:
    """Return the constants of a reduction that hold for any number of positions.

    A dimension without labels, such as a batch or a sequence, may have another size in another
    call. Along it, a value that all positions have is known, and its sum if it is zero.

    Args:
        x: the tensor.
        dims: the dimensions that are reduced, not negative.
        name: the operator.
    """
    labelled = {dim for layer in x.layers for dim in varying(layer)}
    free = sorted(set(dims) - labelled)
    held = x.constant
    if held is None or not free:
        return x
    for dim in free:
        same = (held == held.narrow(dim, 0, 1)).all(dim, keepdim=True)
        held = torch.where(same, held, torch.nan)
    if name not in _AVERAGING:
        is_kept = (held == 0) & (name != "logsumexp")
        held = torch.where(is_kept, held, torch.nan)
    return attrs.evolve(x, constant=held)


def uses_of(weight: Flow, unknown: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Return the inputs that a matrix uses, and the outputs that depend on unknown inputs.

    Args:
        weight: the matrix.
        unknown: the inputs without a constant, bool, shape (inputs,).
        rows: the dimension of its outputs.

    Returns:
        Bool, shapes (inputs,) and (outputs,).
    """
    inputs, outputs, start = [], [], 0
    for part in weight.runs():
        used = part.bool()
        here = unknown if rows == 0 else unknown[start : start + len(part), None]
        inputs.append(used.any(rows))
        outputs.append((used & here).any(1 - rows))
        start += len(part)
    if rows == 0:
        return torch.stack(inputs).any(0), torch.cat(outputs)
    return torch.cat(inputs), torch.stack(outputs).any(0)


_ROUNDING = 1e-12
"""The relative difference up to which constants are equal, far below a float32 bias's precision."""


@attrs.frozen(eq=False)
class Reader:
    """An operator that sums over positions.

    Attributes:
        what: its name, for reasons.
        weight: its weight.
        bias: its bias, or None.
        sums: returns the contribution of one unit at each position to each output, float64, shape
            (outputs, positions); called when a constant is read.
        zeros: whether the weights of a position are zero, bool, shape (positions,).
        sees_alike: whether it treats all positions the same way, that is, has no padding.
    """

    what: str
    weight: Flow
    bias: Flow | None
    sums: Callable[[], Tensor]
    zeros: Tensor
    sees_alike: bool


def read_positions(trace: Trace, reader: Reader, labels: Layer, values: Tensor) -> None:
    """Keep the positions that a reader needs, and record the constants that its bias takes over.

    Args:
        trace: the walk.
        reader: the reader.
        labels: one for each position, shape (positions,).
        values: their constants, float64, NaN where they depend on the input.
    """
    trace.seen.append(Seen(reader.what, labels, torch.where(reader.zeros, 0.0, values)))
    if reader.bias is not None and reader.bias.name is not None:
        _compare_calls(trace, reader, reader.bias.name, labels, values)
    free = reader.zeros | (values == 0)
    unknown = ~free & values.isnan()
    _pin(trace, labels, unknown, f"{reader.what} reads values there that depend on the input")
    constant = ~free & ~unknown
    if not bool(constant.any()):
        return
    bias = reader.bias.name if reader.bias is not None else None
    weight = reader.weight.name
    if bias is None or weight is None:
        why = "reads a constant there that is not zero and has no bias to take it over"
    elif trace.source.is_rounded and not trace.is_approximate:
        why = "reads a constant there that is not zero, and quantization rounds it or its weights"
    elif not reader.sees_alike and not trace.is_approximate:
        why = "reads a constant there that is not zero at a padded border"
    else:
        shares = reader.sums() * torch.where(constant, values, 0.0)
        kept = trace.source.kept(bias)
        lost = torch.zeros_like(constant)
        if kept is not None:
            lost = ((shares != 0) & ~kept.cpu().reshape(-1, 1)).any(0)
        _note(trace, Absorbed(bias, weight, labels, values, shares))
        constant &= lost
        why = "reads a constant there that its masked bias cannot take over"
    if not trace.is_approximate:
        _pin(trace, labels, constant, f"{reader.what} {why}")


def _pin(trace: Trace, labels: Layer, where: Tensor, reason: str) -> None:
    if bool(where.any()):
        trace.labels.pin(labels[where], reason)


def _compare_calls(trace: Trace, reader: Reader, bias: str, labels: Layer, values: Tensor) -> None:
    """Keep constants that a bias cannot take over, since not all calls that add it read them."""
    new = Read(reader.weight.name, labels, torch.where(reader.zeros, 0.0, values))
    for old in trace.reads.setdefault(bias, []):
        if old.weight is None or old.weight != new.weight or old.labels.shape != labels.shape:
            why = f"{bias} is the bias of several readers"
            _pin(trace, old.labels, old.constant, why)
            _pin(trace, labels, new.constant, why)
            continue
        # The mean of one value differs by rounding from the mean of several equal ones.
        same = torch.isclose(old.values, new.values, rtol=_ROUNDING, atol=0.0, equal_nan=True)
        differs = ~same & (old.constant | new.constant)
        why = f"the calls that use {bias} read different constants"
        if trace.is_elsewhere:
            why = f"the constant that {bias} would take over follows the size of the input"
        _pin(trace, labels, differs, why)
    trace.reads[bias].append(new)


def _note(trace: Trace, new: Absorbed) -> None:
    """Record the constants that a bias takes over, once for all calls of one reader."""
    for old in trace.absorbed:
        if old.weight == new.weight and old.bias != new.bias:
            trace.labels.pin(new.labels, f"{new.weight} is read with several biases")
    if all(old.bias != new.bias for old in trace.absorbed):
        trace.absorbed.append(new)


def alike_in_rows(trace: Trace, flow: Flow, summed: int, rows: int) -> Flow:
    """Let rows of several origins, as in a stack, lose the same summed positions.

    Args:
        trace: the walk.
        flow: an operand of a product.
        summed: the dimension that is summed over, not negative.
        rows: the other one of the last two.
    """
    if not bool((values_along(flow, summed) == 0).any()):
        return flow
    layers = [
        trace.labels.tie_along(x, [rows]) if set(varying(x)) == {rows, summed} else x
        for x in flow.layers
    ]
    return attrs.evolve(flow, layers=tuple(layers))


def sum_where_zero(trace: Trace, first: Flow, second: Flow, dim: int, why: str) -> None:
    """Remove a summed position from both operands where one of them is zero.

    Args:
        trace: the walk.
        first: an operand, summed over along its last dimension.
        second: the other operand.
        dim: the dimension of the other that is summed over, negative.
        why: the reason for positions that stay.
    """
    sides = ((first, first.ndim - 1), (second, second.ndim + dim))
    labels = [trace.labels.joined(_single(*side)) for side in sides]
    zero = [values_along(*side) == 0 for side in sides]
    if labels[0] is None or labels[1] is None or zero[0].shape != zero[1].shape:
        for layer in labels:
            if layer is not None:
                trace.labels.pin(layer, why)
        return
    left, right = (layer.reshape(-1) for layer in labels if layer is not None)
    trace.labels.tie(left, right)
    trace.labels.pin(left[~(zero[0] | zero[1])], why)


def _single(flow: Flow, dim: int) -> tuple[Layer, ...]:
    return tuple(x for x in flow.layers if varying(x) == (dim,))
