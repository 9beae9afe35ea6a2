"""A model as a graph of ``torch.export``, for shrinking and its proof."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.fx import Node, config

from tersely.shrinking.graph.capturing import flat_weights_kept, without_caches
from tersely.shrinking.graph.functional import without_writes


@attrs.frozen(eq=False)
class Program:
    """The operators of a model's forward, in order.

    Attributes:
        nodes: placeholders, operators and the output, in the order in which they run.
        parameters: placeholder -> name of its parameter or buffer.
        constants: placeholder -> value of a tensor that forward creates from literals.
        written: operator whose result forward writes into a buffer without returning it -> the
            buffer.
    """

    nodes: tuple[Node, ...]
    parameters: Mapping[Node, str]
    constants: Mapping[Node, Tensor]
    written: Mapping[Node, str] = attrs.field(factory=dict)


def read_program(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    has_lines: bool = False,
) -> Program:
    """Export a model in evaluation mode; its training flags and weights do not change.

    Args:
        model: the model.
        args: positional arguments of forward.
        kwargs: keyword arguments of forward.
        has_lines: whether operators have the lines of code that run them, as ``stack_trace``; this
            takes a fifth of an export's time.

    Raises:
        Exception: whatever ``torch.export`` or the model raises; ValueError for an operator whose
            result has a size that depends on values.
    """
    with (
        evaluating(model),
        flat_weights_kept(model),
        without_caches(model),
        _quiet(),
        _lines(are_noted=has_lines),
        warnings.catch_warnings(),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")
        exported = torch.export.export(model, tuple(args), dict(kwargs), strict=False)
        exported = without_writes(exported)
    _refuse_unknown_sizes(exported.graph.nodes)
    signature = exported.graph_signature
    named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    lifted = signature.inputs_to_lifted_tensor_constants
    nodes = tuple(exported.graph.nodes)
    held = [node for node in nodes if node.op == "placeholder"]
    return Program(
        nodes=nodes,
        parameters={node: named[node.name] for node in held if node.name in named},
        constants={
            node: exported.constants[lifted[node.name]] for node in held if node.name in lifted
        },
        written={
            node: signature.buffers_to_mutate[node.name]
            for node in nodes
            if node.name in signature.buffers_to_mutate and node.name not in signature.user_outputs
        },
    )


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name, every name of shared ones included.

    Args:
        model: the model.
    """
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging a traceback of errors that are raised anyway."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before = logger.disabled
    try:
        logger.disabled = True
        yield
    finally:
        logger.disabled = before


@contextlib.contextmanager
def _lines(*, are_noted: bool) -> Iterator[None]:
    """Turn torch's recording of source lines on or off, if this version allows it."""
    before = getattr(config, "do_not_emit_stack_traces", None)
    if before is None:
        yield
        return
    try:
        config.do_not_emit_stack_traces = not are_noted
        yield
    finally:
        config.do_not_emit_stack_traces = before


def _refuse_unknown_sizes(nodes: Iterable[Node]) -> None:
    for node in nodes:
        values = node.meta.get("val")
        for value in values if isinstance(values, list | tuple) else [values]:
            is_unknown = isinstance(value, Tensor) and not all(
                isinstance(size, int) for size in value.shape
            )
            if is_unknown:
                raise ValueError(
                    f"{operator_name(node)} in forward of {module_of(node) or 'the model'} has a "
                    "result whose size depends on values; with indices instead of a mask of "
                    "booleans it would not"
                )


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode inside the block.

    Args:
        model: the model.
    """
    training = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, flag in training.items():
            module.training = flag


def modules_around(node: Node) -> tuple[str, ...]:
    """Return the full names of the modules whose forward an operator runs in, outermost first.

    Args:
        node: the operator.
    """
    stack = node.meta.get("nn_module_stack") or {}
    # A second call of a module is named with @ and a number.
    return tuple(str(name).partition("@")[0] for name, _ in stack.values())


def module_of(node: Node) -> str:
    """Return the full name of the module whose forward runs an operator; empty for the root.

    Args:
        node: the operator.
    """
    return (modules_around(node) or ("",))[-1]


def place_of(node: Node) -> str:
    """Return the text of an operator and its module, such as ``add of layer1.0``.

    Args:
        node: the operator, or an input of the program.
    """
    if node.op == "placeholder":
        return f"input {node.name}"
    return f"{operator_name(node)} of {module_of(node) or 'the model'}"


def given(node: Node) -> tuple[Any, ...]:
    """Return an operator's positional arguments.

    Args:
        node: the operator.
    """
    return tuple(node.args)


def argument(node: Node, index: int, name: str = "", default: Any = None) -> Any:
    """Return one argument of an operator, by position or name.

    Args:
        node: the operator.
        index: its position.
        name: its name.
        default: its default.
    """
    if len(node.args) > index:
        return node.args[index]
    return node.kwargs.get(name, default)


def operator_name(node: Node) -> str:
    """Return an operator's name without namespace and overload, such as ``conv2d``.

    Args:
        node: the operator.
    """
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.split("::")[-1]
    return getattr(target, "__name__", str(target))


def shape_of(node: Node) -> tuple[int, ...]:
    """Return the shape of a node's result; empty if it is not a tensor.

    Args:
        node: the node.
    """
    value = node.meta.get("val")
    return tuple(int(size) for size in value.shape) if isinstance(value, Tensor) else ()
