"""The tracer: a copy of the model is run, its channels are followed, and the result is checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

import tersely
from tersely_shrink.attention import packed_attention
from tersely_shrink.edges import Edges
from tersely_shrink.graph import Graph, build_graph
from tersely_shrink.parameters import find_parameters
from tersely_shrink.products import loose_products
from tersely_shrink.rehearsal import run_isolated, traceable_copy
from tersely_shrink.runs import Runs
from tersely_shrink.spaces import ChannelSpaces
from tersely_shrink.ties import tie
from tersely_shrink.verification import mismatches


class TorchPruningTracer:
    """Finds shared channels with torch-pruning's ``DependencyGraph``.

    Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023. The graph is theirs. Which
    channel goes where is theirs too, but for concatenation, splitting and reduction, which are
    read from the shapes that autograd saved; and what comes out is checked by sending NaNs through
    the network, so that an operation that was misunderstood is an error and no wrong group.
    """

    def trace(
        self, model: nn.Module, example_inputs: Any, *, parameters: Sequence[str]
    ) -> Sequence[tersely.SharedChannels]:
        """Return which parameters share output channels.

        Args:
            model: the model; a copy that shares its parameters' storage is run, so nothing of the
                model changes. On the meta device the result is not checked by a run.
            example_inputs: a tensor, a tuple or list of arguments, or a mapping of keyword
                arguments, on the model's device.
            parameters: names as in ``named_parameters()``.

        Raises:
            PlanError: the model cannot be run or followed, or its ties are no one-to-one ties;
                names the module or the operation.
        """
        copy = traceable_copy(model)
        with run_isolated(copy):
            graph = build_graph(copy, example_inputs)
            spaces = ChannelSpaces(Edges(graph))
            self._check(graph, spaces, example_inputs)
        attention = packed_attention(copy, parameters)
        found = find_parameters(graph, spaces, [one for one in parameters if one not in attention])
        groups = tie(found, Runs(graph, spaces))
        return [*groups, *dict.fromkeys(attention.values())]

    def _check(self, graph: Graph, spaces: ChannelSpaces, example_inputs: Any) -> None:
        for node, reason in loose_products(graph):
            spaces.doubt(node, reason)
        if any(parameter.is_meta for parameter in graph.model.parameters()):
            return
        for node, reason in mismatches(graph, spaces, example_inputs):
            spaces.doubt(node, reason)
