"""Pruning by weight, and the schedules along which sparsity grows."""

from __future__ import annotations

from collections.abc import Sequence

import laconic

laconic_api = 1


@laconic.hookimpl
def laconic_pruners() -> Sequence[laconic.PrunerInfo]:
    """Return the pruning algorithms this package provides."""
    return [
        laconic.PrunerInfo(
            name="level",
            implementation="laconic_pruning.level:Level",
            summary="Magnitude of every element.",
            default_granularity="element",
            paper="Han et al., Learning both Weights and Connections, NIPS 2015",
        ),
        laconic.PrunerInfo(
            name="l1_norm",
            implementation="laconic_pruning.l1_norm:L1Norm",
            summary="Sum of the magnitudes of every output channel.",
            default_granularity="output_channel",
            paper="Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017",
        ),
        laconic.PrunerInfo(
            name="l2_norm",
            implementation="laconic_pruning.l2_norm:L2Norm",
            summary="Euclidean length of every output channel.",
            default_granularity="output_channel",
            paper="He et al., Soft Filter Pruning, IJCAI 2018",
        ),
        laconic.PrunerInfo(
            name="fpgm",
            implementation="laconic_pruning.fpgm:Fpgm",
            summary="Distance of every output channel to all the others.",
            target_kinds=("parameter", "buffer"),
            granularities=("in_channel", "out_channel", "per_channel", "block", "group"),
            default_granularity="output_channel",
            paper="He et al., Filter Pruning via Geometric Median, CVPR 2019",
        ),
    ]


@laconic.hookimpl
def laconic_schedules() -> Sequence[laconic.ScheduleInfo]:
    """Return the schedules this package provides."""
    return [
        laconic.ScheduleInfo(
            name="linear",
            implementation="laconic_pruning.linear:linear",
            summary="Sparsity grows by the same amount at every update.",
        ),
        laconic.ScheduleInfo(
            name="agp",
            implementation="laconic_pruning.agp:agp",
            summary="Sparsity grows fast at first and slowly towards the end.",
            paper="Zhu and Gupta, To Prune, or Not to Prune, ICLR workshop 2018",
        ),
    ]
