"""Rules of recurrent layers: a hidden unit is removed with the rows of all its gates."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from tersely.shrinking.graph.flow import Flow, Trace, settle
from tersely.shrinking.graph.labels import EqualParts, Layer
from tersely.shrinking.graph.program import given, operator_name
from tersely.shrinking.operators.reading import (
    Reader,
    read_positions,
    tie_columns,
    values_along,
    vector,
)

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def is_recurrent(node: Node) -> bool:
    """Tell whether an operator is a recurrent layer over a padded batch.

    Args:
        node: the operator.
    """
    return operator_name(node) in GATES and str(node.target).endswith(".input")


def trace_recurrent(trace: Trace, node: Node) -> tuple[Flow, ...]:
    """Tie gates, biases, states and outputs of each hidden unit, layer by layer."""
    name = operator_name(node)
    gates = GATES[name]
    x = trace.tensor(given(node)[0])
    states = given(node)[1] if isinstance(given(node)[1], list | tuple) else [given(node)[1]]
    weights = [trace.tensor(one) for one in given(node)[2]]
    has_biases, depth = bool(given(node)[3]), int(given(node)[4])
    directions = 2 if given(node)[7] else 1
    step = 4 if has_biases else 2
    hidden = weights[1].shape[1]
    values = node.meta["val"]
    if len(weights) != step * depth * directions or weights[1].shape[0] != gates * hidden:
        for flow in (x, *weights):
            trace.doubt(flow, f"{name} with a projection has no rule")
        return tuple(Flow(tuple(v.shape)) for v in values)
    reads = vector(trace, x, x.ndim - 1)
    for layer in x.layers:
        if layer.shape[-1] == 1:
            trace.labels.pin(layer, f"{name} mixes steps")
    held = values_along(x, x.ndim - 1)
    units: list[Layer] = []
    ends: list[Tensor] = []
    for index in range(depth):
        outputs, constants = [], []
        for direction in range(directions):
            start = step * (index * directions + direction)
            own = weights[start : start + step]
            unit = _unit(trace, own, reads, held, gates, name)
            start_at = [_state(trace, one, len(units)) for one in states]
            for state, _ in start_at:
                trace.labels.tie(unit, state) if state is not None else trace.labels.pin(
                    unit, f"{name} starts from a state that cannot be cut"
                )
            quiet = torch.zeros(hidden, dtype=torch.bool)
            if trace.has_values:
                quiet = _is_quiet(own, gates, hidden, name)
                for _, at_zero in start_at:
                    quiet = quiet & at_zero
                _keep_read(trace, own, unit, quiet, name)
            units.append(unit)
            outputs.append(unit)
            constants.append(torch.where(quiet, 0.0, torch.nan).double())
        ends += constants
        reads, held = torch.cat(outputs), torch.cat(constants)
    trace.labels.constrain(EqualParts(torch.stack(units), may_vanish=False))
    out = Flow(
        tuple(values[0].shape),
        (reads.reshape((1,) * (x.ndim - 1) + (-1,)),),
        settle(held.reshape((1,) * (x.ndim - 1) + (-1,))),
    )
    size = (len(units), *(1,) * (values[1].ndim - 2), hidden)
    final, last = torch.stack(units).reshape(size), settle(torch.stack(ends).reshape(size))
    return (out, *(Flow(tuple(value.shape), (final,), last) for value in values[1:]))


def _unit(
    trace: Trace, own: list[Flow], reads: Layer, held: Tensor, gates: int, name: str
) -> Layer:
    first, second = own[0], own[1]
    columns = vector(trace, Flow(first.shape, _only(first, 1)), 1)
    tie_columns(trace, (first.name or name).rpartition(".")[0] or name, reads, columns)
    if trace.has_values:
        free = (held == 0) | ~first.values().any(0)
        why = f"{name} reads values there that depend on the input"
        trace.labels.pin(columns[~free], why)
    unit = vector(trace, Flow(second.shape, _only(second, 1)), 1)
    rows = [vector(trace, Flow(flow.shape, _only(flow, 0)), 0) for flow in own]
    for row in rows:
        trace.labels.tie(row.view(gates, -1), unit)
    return unit


def _only(flow: Flow, dim: int) -> tuple[Layer, ...]:
    return tuple(layer for layer in flow.layers if layer.shape[dim] > 1)


def _state(trace: Trace, one: object, index: int) -> tuple[Layer | None, Tensor]:
    """Labels of an initial state's units, and whether each starts at zero."""
    flow = trace.flow(one)
    if flow is None:
        return None, torch.tensor(False)
    zero = (flow.known() == 0).flatten(0, -2).all(0)
    layers = [x for x in flow.layers if x.shape[-1] > 1]
    if not layers:
        return None, zero
    layer = layers[0]
    if layer.shape[0] > 1:
        layer = layer[index]
    return trace.labels.tie_along(layer, list(range(layer.ndim - 1))).reshape(-1), zero


def _is_quiet(own: list[Flow], gates: int, hidden: int, name: str) -> Tensor:
    """Tell whether a unit that starts at zero stays there: all terms of its new value are zero."""
    gate = {"lstm": 2, "gru": 2}.get(name, 0)
    quiet = torch.ones(hidden, dtype=torch.bool)
    for flow in own:
        values = flow.values().view(gates, hidden, -1)[gate]
        quiet &= ~values.any(1)
    return quiet


def _keep_read(trace: Trace, own: list[Flow], unit: Layer, quiet: Tensor, name: str) -> None:
    zeros = ~own[1].values().any(0)
    values = torch.where(quiet, 0.0, torch.nan).double()
    what = (own[1].name or name).rpartition(".")[0]
    reader = Reader(what, own[1], None, own[1].values, zeros, sees_alike=False)
    read_positions(trace, reader, unit, values)
