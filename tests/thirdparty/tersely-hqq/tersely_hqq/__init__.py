"""The face of tersely-hqq: two quantizers of weights and a granularity; imports no torch."""

import tersely

tersely_api = 1
HQQ = {
    "type": "object",
    "properties": {
        "iterations": {"type": "integer", "minimum": 0},
        "norm": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "beta": {"type": "number", "exclusiveMinimum": 0},
        "growth": {"type": "number", "minimum": 1},
    },
    "additionalProperties": False,
}
RUN = {
    "type": "object",
    "properties": {"length": {"type": "integer", "minimum": 1}},
    "required": ["length"],
    "additionalProperties": False,
    "examples": [{"length": 2}],
}


@tersely.hookimpl
def tersely_quantizers() -> list[tersely.QuantizerInfo]:
    """Return the algorithms."""
    return [
        tersely.QuantizerInfo(
            name="hqq",
            implementation="tersely_hqq.algorithms:Hqq",
            options=HQQ,
            summary="Zero points between integers that make the error sparse.",
            paper="Badri and Shaji, Half-Quadratic Quantization, 2023",
            target_kinds=("parameter",),
            default_scheme="affine",
        ),
        tersely.QuantizerInfo(
            name="nf4",
            implementation="tersely_hqq.algorithms:NormalFloat4",
            summary="Sixteen quantiles of a normal distribution.",
            paper="Dettmers et al., QLoRA, NeurIPS 2023",
            target_kinds=("parameter",),
        ),
    ]


@tersely.hookimpl
def tersely_granularities() -> list[tersely.GranularityInfo]:
    """Return the granularity."""
    return [
        tersely.GranularityInfo(
            name="run",
            implementation="tersely_hqq.algorithms:Run",
            options=RUN,
            summary="Neighbours along the last dimension.",
            target_kinds=("parameter",),
        )
    ]
