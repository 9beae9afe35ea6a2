"""Pruning by weights, gradients, activations and scores; schedules along which sparsity grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tersely

tersely_api = 1

LEARNING_RATE = {"type": "number", "exclusiveMinimum": 0}
REGULAR_SCALE = {"type": "number", "minimum": 0}
SEQUENTIAL = {"type": "boolean"}
STEPS = {"type": "integer", "minimum": 0}
CHANNELS = ("out_channel", "per_channel", "block", "group")


def options(*required: str, examples: Sequence[Any] = (), **properties: Any) -> Mapping[str, Any]:
    """Return a closed schema of options.

    Args:
        *required: the options that must be given.
        examples: options to try the algorithm with.
        **properties: option -> its schema.
    """
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | {"required": list(required), "examples": list(examples)}


@tersely.hookimpl
def tersely_pruners() -> Sequence[tersely.PrunerInfo]:
    """Return the pruning algorithms of this package."""
    return [
        tersely.PrunerInfo(
            name="level",
            implementation="tersely_pruning.level:Level",
            summary="Magnitude of every element.",
            needs="nothing",
            default_granularity="element",
            paper="Han et al., Learning both Weights and Connections, NIPS 2015",
        ),
        tersely.PrunerInfo(
            name="l1_norm",
            implementation="tersely_pruning.l1_norm:L1Norm",
            summary="Sum of the magnitudes of every output channel.",
            needs="nothing",
            default_granularity="output_channel",
            paper="Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017",
        ),
        tersely.PrunerInfo(
            name="l2_norm",
            implementation="tersely_pruning.l2_norm:L2Norm",
            summary="Euclidean norm of every output channel.",
            needs="nothing",
            default_granularity="output_channel",
            paper="He et al., Soft Filter Pruning, IJCAI 2018",
        ),
        tersely.PrunerInfo(
            name="fpgm",
            implementation="tersely_pruning.fpgm:Fpgm",
            summary="Distance of every output channel to all the others.",
            needs="nothing",
            target_kinds=("parameter", "buffer"),
            granularities=("in_channel", "out_channel", "per_channel", "block", "group"),
            default_granularity="output_channel",
            paper="He et al., Filter Pruning via Geometric Median, CVPR 2019",
        ),
        tersely.PrunerInfo(
            name="taylor",
            implementation="tersely_pruning.taylor:Taylor",
            summary="Products of weights and gradients of every output channel.",
            needs="gradients",
            target_kinds=("parameter",),
            default_granularity="output_channel",
            paper="Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019",
        ),
        tersely.PrunerInfo(
            name="slim",
            implementation="tersely_pruning.slim:Slim",
            summary="Learned factor of every output channel, under an L1 penalty.",
            options=options(regular_scale=REGULAR_SCALE, learning_rate=LEARNING_RATE),
            needs="training",
            target_kinds=("parameter",),
            default_granularity="output_channel",
            paper="Liu et al., Network Slimming, ICCV 2017",
        ),
        tersely.PrunerInfo(
            name="movement",
            implementation="tersely_pruning.movement:Movement",
            summary="Scores of every output channel, learned through the mask.",
            options=options(
                "cooldown_begin_step",
                examples=[{"cooldown_begin_step": 2}],
                warmup_steps=STEPS,
                cooldown_begin_step=STEPS,
                regular_scale=REGULAR_SCALE,
                learning_rate=LEARNING_RATE,
            ),
            needs="training",
            target_kinds=("parameter",),
            default_granularity="output_channel",
            paper="Sanh et al., Movement Pruning, NeurIPS 2020",
        ),
        tersely.PrunerInfo(
            name="apoz",
            implementation="tersely_pruning.apoz:Apoz",
            summary="How often every output channel is positive.",
            needs="activations",
            target_kinds=("parameter", "buffer"),
            granularities=CHANNELS,
            default_granularity="output_channel",
            paper="Hu et al., Network Trimming, arXiv 2016",
        ),
        tersely.PrunerInfo(
            name="mean_activation",
            implementation="tersely_pruning.mean_activation:MeanActivation",
            summary="Mean of every output channel after a ReLU.",
            needs="activations",
            target_kinds=("parameter", "buffer"),
            granularities=CHANNELS,
            default_granularity="output_channel",
            paper="Molchanov et al., Pruning Convolutional Neural Networks, ICLR 2017",
        ),
        tersely.PrunerInfo(
            name="wanda",
            implementation="tersely_pruning.wanda:Wanda",
            summary="Magnitude times the norm of the input, within every row.",
            options=options(sequential=SEQUENTIAL),
            needs="activations",
            target_kinds=("parameter", "buffer"),
            default_granularity="row",
            paper="Sun et al., A Simple and Effective Pruning Approach for LLMs, ICLR 2024",
        ),
        tersely.PrunerInfo(
            name="sparsegpt",
            implementation="tersely_pruning.sparsegpt:SparseGpt",
            summary="Error that masking causes, with an update of the weights that are kept.",
            options=options(
                percdamp={"type": "number", "minimum": 0},
                block_size={"type": "integer", "minimum": 1},
                refine_steps={"type": "integer", "minimum": 0},
                sequential=SEQUENTIAL,
            ),
            needs="activations",
            target_kinds=("parameter", "buffer"),
            granularities=("n_m",),
            default_granularity="element",
            paper="Frantar and Alistarh, SparseGPT, ICML 2023",
        ),
        tersely.PrunerInfo(
            name="random",
            implementation="tersely_pruning.random:Random",
            summary="Numbers drawn from a seed: the baseline.",
            needs="nothing",
            options=options(seed={"type": "integer", "minimum": 0, "maximum": 2**31 - 1}),
            default_granularity="element",
            paper="Gale et al., The State of Sparsity in Deep Neural Networks, arXiv 2019",
        ),
    ]


@tersely.hookimpl
def tersely_schedules() -> Sequence[tersely.ScheduleInfo]:
    """Return the schedules of this package."""
    return [
        tersely.ScheduleInfo(
            name="linear",
            implementation="tersely_pruning.linear:linear",
            summary="Sparsity grows by the same amount at every update.",
        ),
        tersely.ScheduleInfo(
            name="agp",
            implementation="tersely_pruning.agp:agp",
            summary="Sparsity grows fast at first and slowly towards the end.",
            paper="Zhu and Gupta, To Prune, or Not to Prune, ICLR workshop 2018",
        ),
    ]
