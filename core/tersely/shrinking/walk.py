"""The walk over a program: which rule serves which operator."""

from __future__ import annotations

import operator
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.fx import Node

from tersely.shrinking.attending import trace_attention
from tersely.shrinking.convolution import NAME, trace_convolution
from tersely.shrinking.flow import Flow, Source, Trace, arguments
from tersely.shrinking.linear import NAMES as PRODUCTS
from tersely.shrinking.linear import trace_product
from tersely.shrinking.mixing import (
    ALONG,
    CREATORS,
    LOCAL,
    REDUCTIONS,
    trace_along,
    trace_creator,
    trace_embedding,
    trace_local,
    trace_reduction,
    trace_unknown,
)
from tersely.shrinking.moving import is_moving, trace_moving
from tersely.shrinking.normalizing import NAMES as NORMS
from tersely.shrinking.normalizing import trace_norm
from tersely.shrinking.pointwise import is_pointwise, trace_pointwise
from tersely.shrinking.program import Program, modules_around, operator_name, shape_of
from tersely.shrinking.recurring import is_recurrent, trace_recurrent


def walk(
    program: Program,
    source: Source,
    *,
    held: Mapping[str, str] | None = None,
    is_training: bool = False,
) -> Trace:
    """Collect labels, constants and conditions of every tensor of a program.

    Args:
        program: the program.
        source: values of its parameters.
        held: module or parameter -> why its inputs and outputs, or it itself, keep their shape.
        is_training: whether constants are those that batch norms make of them in training.
    """
    trace = Trace(source, is_training=is_training)
    for node in program.nodes:
        if node.op == "placeholder":
            trace.flows[node] = _placeholder(trace, program, node)
        elif node.op == "output":
            for one in arguments(node):
                if (flow := trace.flow(one)) is not None:
                    trace.pin(flow, "it is an output of the model")
        else:
            trace.flows[node] = _operator(trace, node)
    _hold(trace, program, held or {})
    return trace


def _hold(trace: Trace, program: Program, held: Mapping[str, str]) -> None:
    for name, flow in trace.roots.items():
        if name in held:
            trace.pin(flow, held[name])
    for node in program.nodes:
        inside = {path for path in modules_around(node) if path in held}
        if node.op != "call_function" or not inside:
            continue
        for path in inside:
            inputs = [one for one in arguments(node) if path not in modules_around(one)]
            leaves = [one for one in node.users if path not in modules_around(one)]
            for one in [*inputs, *([node] if leaves else [])]:
                flow = trace.flow(one)
                if flow is not None and flow.read is None:
                    trace.pin(flow, held[path])


def _placeholder(trace: Trace, program: Program, node: Node) -> Flow:
    shape = shape_of(node)
    if node in program.parameters:
        return trace.root(program.parameters[node], shape)
    if node in program.constants:
        value = program.constants[node]
        return Flow(shape, read=lambda: value)
    return Flow(shape)


def _operator(trace: Trace, node: Node) -> Flow | tuple[Flow, ...]:
    if node.target is operator.getitem:
        several = trace.flows[node.args[0]]
        return several[node.args[1]] if isinstance(several, tuple) else several
    name = operator_name(node)
    first = node.args[0] if node.args else None
    whole = trace.flow(first)
    if name in CREATORS and isinstance(node.meta["val"], Tensor):
        return trace_creator(trace, node)
    if any(isinstance(trace.flows.get(one), tuple) for one in arguments(node)):
        return trace_unknown(trace, node)
    if name in PRODUCTS:
        return trace_product(trace, node)
    if NAME.match(name) and not isinstance(trace.flow(node.args[1]), type(None)):
        return trace_convolution(trace, node)
    if name == "scaled_dot_product_attention":
        return trace_attention(trace, node)
    if is_recurrent(node):
        return trace_recurrent(trace, node)
    if name in NORMS and whole is not None:
        return trace_norm(trace, node)
    if name == "embedding":
        return trace_embedding(trace, node)
    if whole is not None and name in REDUCTIONS and not _is_elementwise(node):
        return trace_reduction(trace, node)
    if whole is not None and name in ALONG:
        return trace_along(trace, node)
    if whole is not None and LOCAL.match(name):
        return trace_local(trace, node)
    if (
        arguments(node)
        and isinstance(node.target, torch._ops.OpOverload)
        and is_moving(trace, node)
    ):
        return trace_moving(trace, node)
    if arguments(node) and is_pointwise(node) and isinstance(node.meta["val"], Tensor):
        return trace_pointwise(trace, node)
    return trace_unknown(trace, node)


def _is_elementwise(node: Node) -> bool:
    return (
        str(node.target).endswith((".other", ".Tensor")) or torch.Tag.pointwise in node.target.tags
    )
