"""torch-pruning's graph of a model, with the shapes and places that autograd saved beside it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import attrs
import torch_pruning
from torch import nn
from torch_pruning.ops import OPTYPE

import tersely
from tersely_shrink.rehearsal import call, describe

Node: TypeAlias = Any  # torch_pruning.dependency.node.Node, which has no types
State: TypeAlias = tuple[Node, bool]
"""A node's channels: those that enter it (True) or those that leave it (False)."""

CONVOLUTION = nn.modules.conv._ConvNd
MODULE_TYPES = frozenset(
    {
        OPTYPE.CONV,
        OPTYPE.DEPTHWISE_CONV,
        OPTYPE.LINEAR,
        OPTYPE.BN,
        OPTYPE.LN,
        OPTYPE.GN,
        OPTYPE.IN,
        OPTYPE.PRELU,
        OPTYPE.EMBED,
        OPTYPE.MHA,
        OPTYPE.LSTM,
    }
)
CHANNELS_FIRST = frozenset(
    {OPTYPE.CONV, OPTYPE.DEPTHWISE_CONV, OPTYPE.BN, OPTYPE.GN, OPTYPE.IN, OPTYPE.PRELU}
)


@attrs.frozen(eq=False)
class Graph:
    """A traced model.

    Attributes:
        model: the copy that was run.
        dependencies: torch-pruning's graph.
        names: module -> its name.
    """

    model: nn.Module
    dependencies: Any
    names: dict[nn.Module, str]

    @property
    def nodes(self) -> Sequence[Node]:
        """All modules, operations and loose parameters, in the order of the trace."""
        return list(self.dependencies.module2node.values())

    def node_of(self, module: nn.Module) -> Node | None:
        """Return the node of a module or parameter, or None when the trace did not meet it."""
        return self.dependencies.module2node.get(module)

    def title(self, node: Node) -> str:
        """Return what to call a node in an error."""
        if node.type in MODULE_TYPES:
            return f"module {self.names[node.module]!r} ({type(node.module).__name__})"
        return f"operation {operation(node)}"

    def state(self, node: Node, handler: Any) -> State:
        """Return the channels that one of torch-pruning's functions removes.

        Args:
            node: the node.
            handler: the trigger or handler of one of its dependencies.
        """
        pruner = self.dependencies.get_pruner_of_module(node.module)
        return node, handler != pruner.prune_out_channels

    def leaving(self, node: Node) -> State:
        """Return the channels that leave a node."""
        return node, False

    def entering(self, node: Node) -> State:
        """Return the channels that enter a node, which leave it too where it only passes them."""
        pruner = self.dependencies.get_pruner_of_module(node.module)
        return self.state(node, pruner.prune_in_channels)

    def count(self, state: State) -> int | None:
        """Return how many channels a module has there; None for operations."""
        node, is_input = state
        if node.type not in MODULE_TYPES and node.type != OPTYPE.PARAMETER:
            return None
        ask = self.dependencies.get_in_channels if is_input else self.dependencies.get_out_channels
        found: int | None = ask(node)
        return found


class _DependencyGraph(torch_pruning.DependencyGraph):  # type: ignore[misc]  # it has no types
    """torch-pruning's graph, told how large the parts of a concatenation are.

    It would look for a module that makes each part, and fail where there is none, as for the
    model's own input.
    """

    def _trace(self, *arguments: Any, **keywords: Any) -> Any:
        found = super()._trace(*arguments, **keywords)
        for node in found.values():
            if node.type == OPTYPE.CONCAT:
                place = signed(node.grad_fn._saved_dim) % len(shape_of(node))
                sizes = [shape_of(source, output)[place] for source, output in arguments_of(node)]
                node.module.concat_sizes = sizes
        return found


def build_graph(model: nn.Module, example_inputs: Any) -> Graph:
    """Trace a model.

    Args:
        model: a traceable copy.
        example_inputs: as `tersely_shrink.rehearsal.call` takes them.

    Raises:
        PlanError: the model cannot be run, or torch-pruning cannot follow what it does.
    """

    def forward(model: nn.Module, inputs: Any) -> Any:
        outputs = call(model, inputs)
        if not outputs:
            raise tersely.PlanError(
                "the model cannot be traced: none of its outputs depends on a parameter with a "
                "gradient; its forward runs under no_grad, detaches, or returns no tensor"
            )
        # The last operation of each output becomes a node that ties all that enters it.
        return [one.clone() for one in outputs]

    dependencies = _DependencyGraph()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about deprecated parts of torch that it tries
            dependencies.build_dependency(model, example_inputs, forward, verbose=False)
    except tersely.TerselyError:
        raise
    except Exception as error:  # foreign code
        raise tersely.PlanError(
            f"the model cannot be traced: torch-pruning {torch_pruning.__version__} raised "
            f"{describe(error)}; leave out the part of the model that it cannot follow, or write "
            f"dependency_group_id by hand"
        ) from error
    return Graph(model, dependencies, {module: name for name, module in model.named_modules()})


def operation(node: Node) -> str:
    """Return autograd's name of an operation, as in ``ViewBackward0``."""
    name = getattr(node.grad_fn, "name", None)
    return str(name()) if callable(name) else type(node.grad_fn).__name__


def signed(saved: int) -> int:
    """Return a dimension or index that autograd saved; it saves negative ones as unsigned.

    Args:
        saved: the number as it is saved.
    """
    return saved - 2**64 if saved >= 2**63 else saved


def shape_of(node: Node, output: int = 0) -> tuple[int, ...]:
    """Return the shape of what a node computed.

    Args:
        node: the node.
        output: which of its outputs.
    """
    if node.type == OPTYPE.PARAMETER:
        return tuple(node.module.shape)
    return tuple(node.grad_fn._input_metadata[output].shape)


def arguments_of(node: Node) -> list[tuple[Node, int]]:
    """Return the nodes an operation takes, in its own order, each with which output it takes.

    A module that is called more than once keeps all inputs of all calls in one node; their places
    are then unknown and given as output 0.
    """
    taken = [
        place
        for function, place in getattr(node.grad_fn, "next_functions", ())
        if function is not None and not _is_wrapped_leaf(function, node)
    ]
    if len(taken) != len(node.inputs):
        return [(source, 0) for source in node.inputs]
    return list(zip(node.inputs, taken, strict=True))


def _is_wrapped_leaf(function: Any, node: Node) -> bool:
    variable = getattr(function, "variable", None)
    return variable is not None and all(source.module is not variable for source in node.inputs)
