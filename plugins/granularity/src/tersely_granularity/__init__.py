"""The granularities of the specification, and two beyond it: N:M sparsity and groups of inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tersely

tersely_api = 1

SIZES: Mapping[str, Any] = {
    "type": "array",
    "items": {"anyOf": [{"type": "integer", "const": -1}, {"type": "integer", "minimum": 1}]},
    "minItems": 1,
}
"""Block sizes, one for each dimension; -1 = the whole dimension."""

BLOCK: Mapping[str, Any] = {
    "description": "Block sizes, padded in front with 1, or [sizes, front|back, fill].",
    "examples": [[4, 4], [1, -1], [[4, 4]], [[1, -1], "back"], [[1], "back", -1]],
    "anyOf": [
        SIZES,
        {
            "type": "array",
            "prefixItems": [SIZES, {"enum": ["front", "back"]}, SIZES["items"]],
            "items": False,
            "minItems": 1,
        },
    ],
}
"""Every spelling of a block list."""

N_OF_M: Mapping[str, Any] = {
    "description": "N:M, N kept of every M neighbours along the input dimension.",
    "type": "string",
    "pattern": "^[1-9][0-9]*:[1-9][0-9]*$",
    "examples": ["2:4", "4:8"],
}
"""Every spelling of N:M sparsity."""

GROUP: Mapping[str, Any] = {
    "description": "The number of neighbours along the input dimension that share one decision.",
    "type": "object",
    "properties": {"group": {"type": "integer", "minimum": 1}},
    "required": ["group"],
    "examples": [{"group": 4}],
    "additionalProperties": False,
}
"""The spelling of groups of inputs."""


@tersely.hookimpl
def tersely_granularities() -> Sequence[tersely.GranularityInfo]:
    """Return the granularities of this package."""
    return [
        tersely.GranularityInfo(
            name="in_channel",
            implementation="tersely_granularity.in_channel:InChannel",
            summary="One block for each index of a weight's dimension 1.",
            target_kinds=("parameter", "buffer"),
        ),
        tersely.GranularityInfo(
            name="out_channel",
            implementation="tersely_granularity.out_channel:OutChannel",
            summary="One block for each index of a weight's dimension 0.",
            target_kinds=("parameter", "buffer"),
        ),
        tersely.GranularityInfo(
            name="per_channel",
            implementation="tersely_granularity.per_channel:PerChannel",
            summary="One block for each channel of an activation or output channel of a weight.",
            is_by_channel=True,
        ),
        tersely.GranularityInfo(
            name="per_token",
            implementation="tersely_granularity.per_token:PerToken",
            summary="One block for each row along an activation's last dimension, at every call.",
            target_kinds=("input", "output"),
            is_dynamic=True,
            paper="Yao et al., ZeroQuant, NeurIPS 2022",
        ),
        tersely.GranularityInfo(
            name="block",
            implementation="tersely_granularity.block:Block",
            summary="Blocks of a given size, as in [4, 4].",
            options=_value_option(BLOCK),
            values=BLOCK,
        ),
        tersely.GranularityInfo(
            name="n_m",
            implementation="tersely_granularity.n_m:NOfM",
            summary='N kept of every M neighbours along the input dimension, as in "2:4".',
            options=_value_option(N_OF_M),
            values=N_OF_M,
            paper="Mishra et al., Accelerating Sparse Deep Neural Networks, 2021",
        ),
        tersely.GranularityInfo(
            name="group",
            implementation="tersely_granularity.group:Group",
            summary='Groups of neighbours along the input dimension, as in {"group": 128}.',
            options=_value_option(GROUP),
            values=GROUP,
        ),
    ]


def _value_option(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        "type": "object",
        "properties": {"value": schema},
        "required": ["value"],
        "additionalProperties": False,
    }
