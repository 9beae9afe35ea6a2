"""Which channels of a network can only be removed together."""

from __future__ import annotations

from collections.abc import Sequence

import laconic

laconic_api = 1


@laconic.hookimpl
def laconic_dependency_tracers() -> Sequence[laconic.DependencyTracerInfo]:
    """Return the tracers this package provides."""
    return [
        laconic.DependencyTracerInfo(
            name="torch_pruning",
            implementation="laconic_shrink.tracer:TorchPruningTracer",
            summary="Follows channels through torch-pruning's dependency graph.",
            paper="Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023",
        )
    ]
