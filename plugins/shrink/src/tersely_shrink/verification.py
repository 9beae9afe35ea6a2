"""Checks what was traced against what the network does, by following NaNs through it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch_pruning.ops import OPTYPE

import tersely
from tersely_shrink.graph import CONVOLUTION, MODULE_TYPES, Graph, Node, operation
from tersely_shrink.products import is_mixing
from tersely_shrink.rehearsal import call, describe
from tersely_shrink.spaces import ChannelSpaces

PASSES = 3
_SHOWN = 5
_MIXING = frozenset({OPTYPE.CONV, OPTYPE.LINEAR, OPTYPE.LN, OPTYPE.GN, OPTYPE.MHA, OPTYPE.LSTM})
_MAKING = frozenset({*_MIXING, OPTYPE.EMBED})


def mismatches(
    graph: Graph, spaces: ChannelSpaces, example_inputs: Any
) -> Iterator[tuple[Node, str]]:
    """Yield every node that is not reached by the channels that were traced to it.

    In each pass about half of all classes of channels become NaN where modules make them. A
    module that mixes channels notes which of its input's are NaN, clears them, and makes the NaNs
    of its own output, so one run checks all modules. Channels that were expected have to arrive.
    Others may only arrive where something between modules mixes channels, as attention does.

    Args:
        graph: the traced model.
        spaces: its channels.
        example_inputs: as `tersely_shrink.rehearsal.call` takes them.

    Raises:
        PlanError: the model does not run with NaNs.
    """
    generator = torch.Generator().manual_seed(0)
    reported: set[Node] = set()
    for _ in range(PASSES):
        chosen = _choose(graph, spaces, generator)
        for node, reason in _one_pass(graph, spaces, example_inputs, chosen):
            if node not in reported:
                reported.add(node)
                yield node, reason


def _choose(graph: Graph, spaces: ChannelSpaces, generator: torch.Generator) -> set[int]:
    classes: dict[int | None, None] = {}
    for node in graph.nodes:
        if node.type in _MAKING:
            state = graph.leaving(node)
            count = graph.count(state) or 0
            if count > 1:  # a single channel is broadcast to all others
                classes |= dict.fromkeys(spaces.classes(state, count))
    picks = torch.rand(len(classes), generator=generator) < 0.5  # noqa: PLR2004  # half of them
    return {
        one
        for one, is_picked in zip(classes, picks.tolist(), strict=True)
        if is_picked and one is not None
    }


def _one_pass(
    graph: Graph, spaces: ChannelSpaces, example_inputs: Any, chosen: set[int]
) -> list[tuple[Node, str]]:
    probes = [Probe(graph, spaces, node, chosen) for node in graph.nodes if node.type in _MAKING]
    handles = []
    for probe in probes:
        module = probe.node.module
        handles.append(module.register_forward_pre_hook(probe.enter, with_kwargs=True))
        handles.append(module.register_forward_hook(probe.leave, prepend=True))
    try:
        call(graph.model, example_inputs)
    except tersely.PlanError as error:
        raise tersely.PlanError(
            f"what was traced cannot be checked, because the model does not run when some of its "
            f"channels are NaN: {describe(error.__cause__ or error)}; write dependency_group_id "
            f"by hand"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return [(probe.node, probe.problem) for probe in probes if probe.problem is not None]


@attrs.define(eq=False)
class Probe:
    """Watches one module for one pass; mutable because it notes what it saw.

    Attributes:
        graph: the traced model.
        spaces: its channels.
        node: the module's node.
        chosen: classes of channels that are NaN.
        problem: what is wrong, or None.
    """

    graph: Graph
    spaces: ChannelSpaces
    node: Node
    chosen: set[int]
    problem: str | None = None

    def enter(
        self, module: nn.Module, arguments: Sequence[Any], keywords: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Note which channels arrive as NaN and clear them."""
        values = [*arguments, *keywords.values()]
        first = next((one for one in values if _is_float(one)), None)
        if first is not None and self.node.type in _MIXING:
            self._compare(first)
        return (
            tuple(_cleared(one) for one in arguments),
            {key: _cleared(one) for key, one in keywords.items()},
        )

    def leave(self, module: nn.Module, arguments: Sequence[Any], output: Any) -> Any:
        """Make the chosen channels of the output NaN."""
        if isinstance(output, tuple):
            return (self._tainted(output[0]), *output[1:])
        return self._tainted(output)

    def _compare(self, value: Tensor) -> None:
        state = self.graph.entering(self.node)
        dim = _channel_dim(self.node, value)
        others = [one for one in range(value.dim()) if one != dim % value.dim()]
        taint = value.detach().isnan()
        arrived = (taint.any(dim=others) if others else taint).tolist()
        expected = [one in self.chosen for one in self.spaces.classes(state, len(arrived))]
        missing = sum(due and not is_here for due, is_here in zip(expected, arrived, strict=True))
        extra = sum(is_here and not due for due, is_here in zip(expected, arrived, strict=True))
        # What the model is given, or a parameter of its own, is never NaN.
        is_missing = missing and any(node.type in _MAKING for node in self._before())
        is_extra = extra and not any(is_mixing(node, self.spaces.edges) for node in self._before())
        if is_missing or is_extra:
            self.problem = (
                f"the channels that enter {self.graph.title(self.node)} are not those that were "
                f"traced to it; an operation before it reorders or mixes them in a way that "
                f"torch-pruning does not follow ({self._operations()})"
            )

    def _before(self) -> Iterator[Node]:
        """Everything that leads to the module, back to the modules that make its channels."""
        waiting = list(self.node.inputs)
        seen: set[Node] = set()
        for node in waiting:
            if node not in seen:
                seen.add(node)
                yield node
                waiting += () if node.type in _MAKING else node.inputs

    def _operations(self) -> str:
        """The nearest operations before the module, where the reader should look."""
        names = [
            operation(node)
            for node in self._before()
            if node.type not in MODULE_TYPES and node.type != OPTYPE.PARAMETER
        ]
        # The weight of a linear layer is turned inside the layer, which is no way of a channel.
        shown = list(dict.fromkeys(name for name in names if name != "TBackward0"))
        return ", ".join(shown[:_SHOWN]) or "no operation between modules"

    def _tainted(self, output: Tensor) -> Tensor:
        if not _is_float(output):
            return output
        dim = _channel_dim(self.node, output)
        classes = self.spaces.classes(self.graph.leaving(self.node), output.shape[dim])
        chosen = [number for number, one in enumerate(classes) if one in self.chosen]
        index = torch.tensor(chosen, dtype=torch.long, device=output.device)
        return output.index_fill(dim, index, float("nan"))


def _channel_dim(node: Node, value: Tensor) -> int:
    if isinstance(node.module, CONVOLUTION):
        return value.dim() - len(node.module.kernel_size) - 1
    return 1 if node.type == OPTYPE.GN else -1


def _cleared(value: Any) -> Any:
    return value.nan_to_num(nan=0.0) if _is_float(value) else value


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
