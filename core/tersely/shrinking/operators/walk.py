"""The walk over a program, and the rule for each operator."""

from __future__ import annotations

import operator
from collections.abc import Callable, Container, Sequence

import attrs
import torch
from torch import Tensor
from torch.fx import Node

from tersely.engine.state.cutting import FixedShapes
from tersely.shrinking.graph.calling import arguments
from tersely.shrinking.graph.flow import Flow, Source, Trace
from tersely.shrinking.graph.labels import Labels
from tersely.shrinking.graph.program import (
    Program,
    argument,
    given,
    modules_around,
    operator_name,
    place_of,
    shape_of,
)
from tersely.shrinking.operators.attending import trace_attention
from tersely.shrinking.operators.comparing import PAIRS, trace_distances, trace_pair
from tersely.shrinking.operators.convolution import NAME, trace_convolution
from tersely.shrinking.operators.einsum import trace_einsum
from tersely.shrinking.operators.indexing import (
    fills,
    is_looked_up,
    trace_filled,
    trace_looked_up,
    trace_put_at,
)
from tersely.shrinking.operators.linear import GROUPED, trace_grouped, trace_product
from tersely.shrinking.operators.linear import NAMES as PRODUCTS
from tersely.shrinking.operators.mixing import (
    ALONG,
    CREATORS,
    LIKE,
    LOCAL,
    REDUCTIONS,
    trace_along,
    trace_bag,
    trace_creator,
    trace_embedding,
    trace_glu,
    trace_like,
    trace_local,
    trace_reduction,
    trace_unknown,
)
from tersely.shrinking.operators.moving import is_moving, trace_moving
from tersely.shrinking.operators.normalizing import NAMES as NORMS
from tersely.shrinking.operators.normalizing import trace_norm
from tersely.shrinking.operators.order_statistics import RANKS, trace_rank
from tersely.shrinking.operators.picking import (
    PUTS,
    SORTS,
    TRANSFORMS,
    is_random,
    trace_columns,
    trace_gather,
    trace_image,
    trace_pairs,
    trace_put,
    trace_random,
    trace_sampled,
    trace_sort,
    trace_transform,
)
from tersely.shrinking.operators.pointwise import is_pointwise, tie_operands, trace_pointwise
from tersely.shrinking.operators.recurring import is_recurrent, trace_recurrent
from tersely.shrinking.operators.repeating import is_copied, trace_copied


def walk(
    program: Program,
    source: Source,
    *,
    others: Sequence[Program] = (),
    fixed: FixedShapes | None = None,
    labels: Labels | None = None,
    is_training: bool = False,
    is_approximate: bool = False,
) -> Trace:
    """Collect labels, constants and conditions of every tensor of a program.

    Args:
        program: the program.
        source: values of its parameters.
        others: the operators of the same model with inputs of other sizes, which must all allow
            what is removed.
        fixed: tensors that keep their shape -> the reason.
        labels: where to collect ties, without values; by default the labels of what can be removed.
        is_training: whether constants are those of training, after batch norms.
        is_approximate: whether to remove constants that no bias takes over exactly.
    """
    trace = Trace(source, labels=labels, is_training=is_training, is_approximate=is_approximate)
    used = {program.parameters[node] for node in program.parameters if node.users}
    _follow(trace, program)
    for name in trace.roots.keys() - used:
        trace.pin(trace.roots[name], "no output of the example depends on it")
    if others:
        own, trace.is_elsewhere = dict(trace.flows), True
        for other in others:
            _follow(trace, other)
        trace.elsewhere = {node: flow for node, flow in trace.flows.items() if node not in own}
        trace.flows, trace.is_elsewhere = own, False
    _pin_read_elsewhere(trace, (program, *others))
    _pin_fixed(trace, program, fixed or {})
    trace.used.clear()  # for 1x1 kernels they are as large as the weights
    return trace


def _follow(trace: Trace, program: Program) -> None:
    for node in program.nodes:
        if node.op == "placeholder":
            trace.flows[node] = _placeholder(trace, program, node)
        elif node.op == "output":
            for one in arguments(node):
                trace.labels.place = place_of(one)
                if (flow := trace.flow(one)) is None:
                    continue
                if one in program.written:
                    _write(trace, flow, program.written[one])
                else:
                    trace.pin(flow, "it is an output of the model")
        else:
            trace.labels.place = place_of(node)
            trace.flows[node] = _operator(trace, node)
    trace.labels.place = ""


def _write(trace: Trace, flow: Flow, buffer: str) -> None:
    """Tie a buffer that forward writes into with the written value."""
    held = trace.root(buffer, flow.shape)
    tie_operands(trace, [held, attrs.evolve(flow, name=None)], flow.shape, "a write into a buffer")


def _pin_read_elsewhere(trace: Trace, programs: Sequence[Program]) -> None:
    """Keep constants of a bias that is also read as something else."""
    for absorbed in trace.absorbed:
        named = [
            node
            for program in programs
            for node, name in program.parameters.items()
            if name == absorbed.bias
        ]
        users = sum(len(node.users) for node in named)
        if users > len(trace.reads[absorbed.bias]):
            constant = absorbed.values.nan_to_num(0.0) != 0
            why = f"{absorbed.bias} is read as something else too"
            trace.labels.pin(absorbed.labels[constant], why)


def _pin_fixed(trace: Trace, program: Program, fixed: FixedShapes) -> None:
    for name, flow in trace.roots.items():
        module, _, target = name.rpartition(".")
        if (module, target) in fixed:
            trace.pin(flow, fixed[module, target])
    for node in program.nodes:
        if node.op != "call_function":
            continue
        for path in modules_around(node):
            if (path, "input") in fixed:
                for one in arguments(node):
                    if path not in modules_around(one):
                        _pin_activation(trace, one, fixed[path, "input"])
            leaves = any(path not in modules_around(one) for one in node.users)
            if leaves and (path, "output") in fixed:
                _pin_activation(trace, node, fixed[path, "output"])


def _pin_activation(trace: Trace, node: Node, reason: str) -> None:
    flow = trace.flow(node)
    if flow is not None and flow.read is None:
        trace.pin(flow, reason)


def _placeholder(trace: Trace, program: Program, node: Node) -> Flow:
    shape = shape_of(node)
    if node in program.parameters:
        return trace.root(program.parameters[node], shape)
    if node in program.constants:
        value = program.constants[node].cpu()
        return Flow(shape, read=lambda: value)
    return Flow(shape)


Rule = Callable[[Trace, Node], "Flow | tuple[Flow, ...]"]


def _operator(trace: Trace, node: Node) -> Flow | tuple[Flow, ...]:
    if node.target is operator.getitem:
        several = trace.flows[given(node)[0]]
        return several[given(node)[1]] if isinstance(several, tuple) else several
    if operator_name(node).startswith("_assert"):  # the proof compares its assertions
        return Flow(())
    if isinstance(node.meta.get("val"), Tensor | list | tuple):
        for is_served, rule in RULES:
            if is_served(trace, node):
                found = rule(trace, node)
                _pass_scores(trace, node)
                return _unsized(trace, node, found)
    return _unsized(trace, node, trace_unknown(trace, node))


def _unsized(trace: Trace, node: Node, found: Flow | tuple[Flow, ...]) -> Flow | tuple[Flow, ...]:
    """Treat counted values, such as positions, as unknown: other calls have more of them."""
    if not trace.has_values or not isinstance(found, Flow) or found.read is None:
        return found
    made_of = arguments(node)
    if made_of and not any(one in trace.sized for one in made_of):
        return found
    trace.sized.add(node)
    unknown = torch.full((1,) * found.ndim, torch.nan, dtype=torch.float64)
    return attrs.evolve(found, constant=unknown)


def _pass_scores(trace: Trace, node: Node) -> None:
    """Scores that are scaled, masked or normalized are scores of the same product."""
    if node in trace.scored:
        return
    for one in arguments(node):
        if one in trace.scored and shape_of(one) == shape_of(node):
            trace.scored[node] = trace.scored[one]


def _named(names: Container[str]) -> Callable[[Trace, Node], bool]:
    """Return a rule for operators of some names whose first argument is a tensor."""

    def is_served(trace: Trace, node: Node) -> bool:
        first = argument(node, 0)
        return operator_name(node) in names and trace.flow(first) is not None

    return is_served


def _is_reduction(trace: Trace, node: Node) -> bool:
    is_elementwise = str(node.target).endswith((".other", ".Tensor")) or is_pointwise(node)
    return _named(REDUCTIONS)(trace, node) and not is_elementwise


def _moves(trace: Trace, node: Node) -> bool:
    is_operator = isinstance(node.target, torch._ops.OpOverload)
    return is_operator and bool(arguments(node)) and is_moving(trace, node)


def _is_elementwise(trace: Trace, node: Node) -> bool:
    return bool(arguments(node)) and is_pointwise(node) and isinstance(node.meta["val"], Tensor)


RULES: tuple[tuple[Callable[[Trace, Node], bool], Rule], ...] = (
    (lambda trace, node: trace.has_values and is_random(node), trace_random),
    (lambda trace, node: operator_name(node) in CREATORS, trace_creator),
    (_named(LIKE), trace_like),
    (lambda trace, node: operator_name(node) in PRODUCTS, trace_product),
    (lambda trace, node: operator_name(node) in ("einsum", "tensordot"), trace_einsum),
    (_named(GROUPED), trace_grouped),
    (lambda trace, node: NAME.match(operator_name(node)) is not None, trace_convolution),
    (_named(["scaled_dot_product_attention"]), trace_attention),
    (lambda trace, node: is_recurrent(node), trace_recurrent),
    (_named(["glu"]), trace_glu),
    (_named(NORMS), trace_norm),
    (_named(PAIRS), trace_pair),
    (_named(["cdist", "_cdist_forward"]), trace_distances),
    (_named(["embedding"]), trace_embedding),
    (_named(["embedding_bag"]), trace_bag),
    (_is_reduction, trace_reduction),
    (_named(RANKS), trace_rank),
    (_named(ALONG), trace_along),
    (lambda trace, node: LOCAL.match(operator_name(node)) is not None, trace_local),
    (_named(SORTS), trace_sort),
    (_named(["gather", "take_along_dim"]), trace_gather),
    (_named(PUTS), trace_put),
    (_named(["grid_sampler"]), trace_sampled),
    (_named(TRANSFORMS), trace_transform),
    (_named(["view_as_real", "view_as_complex"]), trace_pairs),
    (_named(["im2col"]), trace_columns),
    (_named(["col2im"]), trace_image),
    (is_copied, trace_copied),
    (_moves, trace_moving),
    (lambda trace, node: is_looked_up(node), trace_looked_up),
    (lambda trace, node: fills(node), trace_filled),
    (_named(["index_put"]), trace_put_at),
    (_is_elementwise, trace_pointwise),
)
"""The rules with the operators that they apply to; the first match is used."""
