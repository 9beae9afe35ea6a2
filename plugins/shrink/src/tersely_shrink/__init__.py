"""Which channels of a network can only be removed together."""

from __future__ import annotations

from collections.abc import Sequence

import tersely

tersely_api = 1


@tersely.hookimpl
def tersely_dependency_tracers() -> Sequence[tersely.DependencyTracerInfo]:
    """Return the tracers this package provides."""
    return [
        tersely.DependencyTracerInfo(
            name="torch_pruning",
            implementation="tersely_shrink.tracer:TorchPruningTracer",
            summary="Follows channels through torch-pruning's dependency graph.",
            paper="Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023",
        )
    ]
