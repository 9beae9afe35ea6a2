"""Elementwise operators: the ties between operands, and results for constants."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.fx import Node

from tersely.shrinking.graph.calling import arguments, call
from tersely.shrinking.graph.flow import Flow, Trace, aligned, settle
from tersely.shrinking.graph.labels import Layer, varying
from tersely.shrinking.graph.program import given, operator_name, shape_of

NAMES = frozenset(
    [
        "clone",
        "contiguous",
        "alias",
        "detach",
        "to",
        "_to_copy",
        "type_as",
        "lift_fresh_copy",
        "dropout",
        "feature_dropout",
        "native_dropout",
        "alpha_dropout",
        "where",
        "masked_fill",
        "fill",
        "clamp",
        "clamp_min",
        "clamp_max",
        "hardtanh",
        "hardswish",
        "hardsigmoid",
        "gelu",
        "silu",
        "mish",
        "relu6",
        "leaky_relu",
        "elu",
        "celu",
        "selu",
        "softplus",
        "logsigmoid",
        "threshold",
        "softsign",
        "tanhshrink",
        "hardshrink",
        "softshrink",
        "add",
        "sub",
        "mul",
        "div",
        "rsub",
        "copy",
        "complex",
        "polar",
        "fake_quantize_per_tensor_affine",
    ]
)
_LARGEST = 1 << 28
"""The most elements of a tensor computed from weights that is computed on request."""

_CHOICE = 3
"""The operands of ``where``: a mask and two tensors."""

_RANDOM = frozenset(["bernoulli", "rand_like", "randn_like", "dropout_", "native_dropout"])


def is_pointwise(node: Node) -> bool:
    """Tell whether an operator is elementwise.

    Args:
        node: the operator.
    """
    tags = getattr(node.target, "tags", ())
    return torch.Tag.pointwise in tags or operator_name(node) in NAMES


def trace_pointwise(trace: Trace, node: Node) -> Flow:
    """Tie the operands of an elementwise operator; a product with 0 is 0."""
    shape = shape_of(node)
    inputs = arguments(node)
    if trace.has_values:
        follow_expanded(trace, node)
    flows = [flow for one in inputs if (flow := trace.flow(one)) is not None]
    layers = tie_operands(trace, flows, shape, operator_name(node))
    constant = _constant(trace, node, inputs) if trace.has_values else None
    return Flow(shape, layers, constant, _reader(trace, node, inputs, shape))


def follow_expanded(trace: Trace, node: Node) -> None:
    """Let a tensor that was expanded to another operand's size lose the same positions.

    Operators that read it before the expansion are not affected.

    Args:
        trace: the walk.
        node: the operator, with its operands.
    """
    flows = {one: flow for one in arguments(node) if (flow := trace.flow(one)) is not None}
    for one, flow in flows.items():
        is_read = any(user in trace.flows for user in one.users)
        if operator_name(one) not in ("expand", "expand_as") or is_read:
            continue
        source = trace.tensor(given(one)[0])
        before = (1,) * (flow.ndim - source.ndim) + source.shape
        others = [aligned(x, flow.ndim) for two in flows.values() for x in two.layers]
        fresh = [
            trace.labels.new([size if d == dim else 1 for d in range(flow.ndim)])
            for dim, size in enumerate(flow.shape)
            if size > before[dim] and any(varying(other) == (dim,) for other in others)
        ]
        trace.flows[one] = attrs.evolve(flow, layers=(*flow.layers, *fresh))


def tie_operands(
    trace: Trace, flows: Sequence[Flow], shape: tuple[int, ...], what: str
) -> tuple[Layer, ...]:
    """Tie operands elementwise, and return the labels of the result.

    Args:
        trace: the walk.
        flows: operands that broadcast to the shape.
        shape: the result's shape.
        what: the operator, for reasons.
    """
    ndim = len(shape)
    full = [
        {ndim - flow.ndim + d for d, size in enumerate(flow.shape) if size > 1} for flow in flows
    ]
    layers = [[aligned(layer, ndim) for layer in flow.layers] for flow in flows]
    signatures = sorted({varying(x) for own in layers for x in own})
    out: list[Layer] = []
    for signature in signatures:
        have = [[x for x in own if varying(x) == signature] for own in layers]
        merged = [trace.labels.joined(own) for own in have]
        present = [x for x in merged if x is not None]
        # An operand that is full along these dimensions and has no label there cannot be cut.
        lacking = [
            full[i] & set(signature)
            for i, own in enumerate(layers)
            if not have[i] and not _covers(own, signature)
        ]
        for other in present[1:]:
            trace.labels.tie(present[0], other)
        layer = present[0]
        fixed = set().union(*lacking) if lacking else set()
        if fixed == set(signature):
            trace.labels.pin(layer, f"{what} combines it with something that cannot be cut")
        elif fixed:
            layer = trace.labels.tie_along(layer, sorted(fixed))
        out.append(layer)
    return _reconciled(trace, layers, out, what)


def _covers(own: Sequence[Layer], signature: tuple[int, ...]) -> bool:
    """Tell whether another layer of the operand depends on these dimensions, and is tied later."""
    return any(set(varying(x)) & set(signature) for x in own)


def _reconciled(
    trace: Trace, layers: Sequence[Sequence[Layer]], out: list[Layer], what: str
) -> tuple[Layer, ...]:
    """Tie layers of which one depends on part of the other's dimensions, when operands differ."""
    kept: list[Layer] = []
    by_operand = [{varying(x) for x in own} for own in layers if own]
    if all(signatures == by_operand[0] for signatures in by_operand):
        return tuple(out)
    for layer in sorted(out, key=lambda x: -len(varying(x))):
        own = set(varying(layer))
        for other in kept:
            common = own & set(varying(other))
            if not common:
                continue
            rest = [dim for dim in varying(other) if dim not in common]
            if own <= set(varying(other)):
                trace.labels.tie(layer, trace.labels.whole(other, rest))
                break
            trace.labels.pin(layer, f"{what} combines different cuts of the same dimension")
            trace.labels.pin(other, f"{what} combines different cuts of the same dimension")
        else:
            kept.append(layer)
    return tuple(kept)


def _constant(trace: Trace, node: Node, inputs: Sequence[Node]) -> Tensor | None:
    name = operator_name(node)
    if name in _RANDOM and name != "native_dropout":
        return None
    known: dict[Node, Tensor] = {}
    for one in inputs:
        flow = trace.flow(one)
        if flow is None:
            return None
        known[one] = flow.known()
    if not known or all(bool(value.isnan().all()) for value in known.values()):
        return None
    try:
        result = _typed(node, known)
    except (RuntimeError, TypeError, NotImplementedError):
        return None
    unknown = torch.zeros((), dtype=torch.bool)
    for value in known.values():
        unknown = unknown | value.isnan()
    if result.is_complex():  # only zeros are known of complex numbers
        result = torch.where(result == 0, 0.0, torch.nan)
    result = torch.where(unknown, torch.nan, result.to(torch.float64))
    if name == "where" and len(known) == _CHOICE:
        _, first, second = (known[one] for one in given(node))
        result = torch.where(first == second, first, result)
    if name in ("mul", "multiply"):
        for value in known.values():
            result = torch.where(value == 0, 0.0, result)
    elif (
        name in ("div", "divide") and given(node)[0] in known and "rounding_mode" not in node.kwargs
    ):
        divided = known[given(node)[0]]
        result = torch.where(divided == 0, 0.0, result)
    return settle(aligned(result, len(shape_of(node))))


def _typed(node: Node, known: dict[Node, Tensor]) -> Tensor:
    """Run the operator on float64 values, or on bool ones if it needs them."""
    values = {
        one: value.nan_to_num(0.0).to(torch.bool)
        if getattr(one.meta.get("val"), "dtype", None) == torch.bool
        else value
        for one, value in known.items()
    }
    if operator_name(node) in ("to", "_to_copy", "type_as"):
        return next(iter(known.values()))
    result: Any = call(node, values)
    first: Tensor = result[0] if isinstance(result, tuple) else result
    return first


def _reader(
    trace: Trace, node: Node, inputs: Sequence[Node], shape: tuple[int, ...]
) -> Callable[[], Tensor] | None:
    flows = {one: trace.tensor(one) for one in inputs if trace.flow(one) is not None}
    if not inputs or len(flows) < len(inputs) or any(x.read is None for x in flows.values()):
        return None
    if operator_name(node) in _RANDOM or math.prod(shape) > _LARGEST:
        return None

    def read() -> Tensor:
        result: Tensor = call(node, {one: flow.values() for one, flow in flows.items()})
        return result

    return read
