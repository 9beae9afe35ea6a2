"""Readers: operators that sum over positions, and the condition on which one lets a position go.

A position goes when the reader's weights there are zero, or the value there is zero, or it is a
constant that the reader's bias takes over.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tersely.shrinking.flow import Absorbed, Flow, Trace
from tersely.shrinking.labels import Layer


def vector(trace: Trace, flow: Flow, dim: int) -> Layer:
    """Return one label for each position along a dimension; what varies otherwise goes together.

    Args:
        trace: the walk.
        flow: the tensor.
        dim: the dimension, not negative.

    Returns:
        Shape (positions,), zeros where nothing can go.
    """
    layer = trace.labels.joined([x for x in flow.layers if x.shape[dim] > 1])
    if layer is None:
        return torch.zeros(flow.shape[dim], dtype=torch.int64)
    others = [d for d in range(flow.ndim) if d != dim]
    return trace.labels.tie_along(layer, others).reshape(-1)


def values_along(flow: Flow, dim: int) -> Tensor:
    """Return the constant that each position along a dimension holds, NaN where it holds none.

    Args:
        flow: the tensor.
        dim: the dimension, not negative.

    Returns:
        float64, shape (positions,).
    """
    known = flow.known().movedim(dim, 0).flatten(1)
    same = (known == known[:, :1]).all(1)
    held = torch.where(same, known[:, 0], torch.nan)
    return held.expand(flow.shape[dim]).clone()


def read_positions(
    trace: Trace,
    labels: Layer,
    values: Tensor,
    weight: Flow,
    sums: Tensor,
    bias: Flow | None,
    *,
    zeros: Tensor,
    absorbs: bool,
    what: str,
) -> None:
    """Keep the positions that a reader needs, and note what its bias takes over of others.

    Args:
        trace: the walk.
        labels: one for each position, shape (positions,).
        values: what each holds, float64, NaN where it depends on the input.
        weight: the reader's weight.
        sums: what one unit at a position adds to each output, shape (outputs, positions).
        bias: the reader's bias, or None.
        zeros: whether the weights of a position are zero, bool, shape (positions,).
        absorbs: whether the reader sees a position alike everywhere, that is without padding.
        what: the reader's name, for reasons.
    """
    free = zeros | (values == 0)
    constant = ~free & ~values.isnan()
    if bool(constant.any()):
        direct = bias is not None and bias.name is not None and weight.name is not None
        if direct and absorbs:
            shares = sums.to(torch.float64) * torch.where(constant, values, 0.0)
            kept = trace.source.kept(bias.name)
            if kept is not None:
                lost = (shares != 0) & ~kept.reshape(-1, 1)
                constant = constant & ~lost.any(0)
            _note(trace, Absorbed(bias.name, weight.name, labels, values, shares))
            _pin(
                trace,
                labels,
                ~free & ~constant & ~values.isnan(),
                f"{what} reads a constant there that its masked bias cannot take over",
            )
            free = free | constant
        else:
            why = "at a padded border" if direct else "and has no bias to take it over"
            _pin(trace, labels, constant, f"{what} reads a constant that is not zero {why}")
    _pin(trace, labels, ~free, f"{what} reads values there that depend on the input")


def _pin(trace: Trace, labels: Layer, where: Tensor, reason: str) -> None:
    if bool(where.any()):
        trace.labels.pin(labels[where], reason)


def _note(trace: Trace, new: Absorbed) -> None:
    """Note what a bias takes over; of several calls of one reader, only what they agree on."""
    for old in trace.absorbed:
        if old.bias != new.bias:
            continue
        if old.weight != new.weight or old.labels.shape != new.labels.shape:
            trace.labels.pin(new.labels, f"{new.bias} is the bias of several readers")
            trace.labels.pin(old.labels, f"{new.bias} is the bias of several readers")
            return
        differs = (old.shares != new.shares).any(0)
        _pin(trace, new.labels, differs, f"the calls that use {new.bias} read different constants")
        return
    for old in trace.absorbed:
        if old.weight == new.weight:
            trace.labels.pin(new.labels, f"{new.weight} is read with several biases")
    trace.absorbed.append(new)
