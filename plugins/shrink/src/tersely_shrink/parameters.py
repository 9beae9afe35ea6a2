"""Finds the channels that a parameter's rows make."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from torch import Tensor, nn
from torch_pruning.ops import OPTYPE

import tersely
from tersely_shrink.graph import Graph, Node, State
from tersely_shrink.spaces import ChannelSpaces

_WAY_OUT = "leave it out with exclude_op_names, or write dependency_group_id by hand"


@attrs.frozen(eq=False)
class Found:
    """A parameter and its output channels.

    Attributes:
        name: its name as in ``named_parameters()``.
        classes: the class of each of its output channels; channels of one class are one channel.
    """

    name: str
    classes: tuple[int, ...]


def find_parameters(graph: Graph, spaces: ChannelSpaces, names: Sequence[str]) -> tuple[Found, ...]:
    """Find the output channels of parameters.

    Args:
        graph: the traced model.
        spaces: its channels.
        names: names as in ``named_parameters()``.

    Raises:
        PlanError: some cannot be found or trusted; one sentence for each.
    """
    found: list[Found] = []
    problems: dict[str, list[str]] = {}
    for name in names:
        module_name, _, attribute = name.rpartition(".")
        module = graph.model.get_submodule(module_name)
        tensor = getattr(module, attribute)
        node = _node(graph, module_name, attribute)
        if node is None:
            problems.setdefault(_absence(module), []).append(name)
            continue
        state = graph.leaving(node)
        problem = _problem(graph, spaces, state, tensor)
        if problem:
            problems.setdefault(problem, []).append(name)
            continue
        classes = spaces.classes(state, graph.count(state) or 0)
        found.append(Found(name, tuple(one for one in classes if one is not None)))
    if problems:
        raise tersely.PlanError(
            [f"{', '.join(names)}: {reason}; {_WAY_OUT}" for reason, names in problems.items()]
        )
    return tuple(found)


def _node(graph: Graph, module_name: str, attribute: str) -> Node | None:
    module = graph.model.get_submodule(module_name)
    node = graph.node_of(module)
    if node is not None:
        return node
    parent = graph.model.get_submodule(module_name.rpartition(".")[0])
    if isinstance(parent, nn.MultiheadAttention) and parent.out_proj is module:
        return graph.node_of(parent)  # it is read without being called
    return graph.node_of(getattr(module, attribute))


def _absence(module: nn.Module) -> str:
    kind = type(module).__name__
    return (
        f"the trace does not meet {kind}: the example_inputs do not lead through it, its result "
        f"reaches no output with a gradient, or torch-pruning does not know the type"
    )


def _problem(graph: Graph, spaces: ChannelSpaces, state: State, tensor: Tensor) -> str | None:
    node = state[0]
    doubt = spaces.doubts(state)
    if doubt is not None:
        return f"the channels cannot be traced: {doubt}"
    count = graph.count(state)
    rows = _rows(node, tensor)
    if count not in (None, rows):
        return (
            f"its {rows} blocks are not the {count} output channels of {graph.title(node)}, so "
            f"they cannot be tied to the channels of other modules"
        )
    return None


def _rows(node: Node, tensor: Tensor) -> int:
    if tensor.dim() > 1:
        is_transposed = getattr(node.module, "transposed", False)
        return tensor.shape[1 if is_transposed or node.type == OPTYPE.EMBED else 0]
    return tensor.numel()
