"""The face of laconic-ria: one plugin of each kind; imports no torch."""

import laconic

laconic_api = 1
POWER = {
    "type": "object",
    "properties": {"power": {"type": "number", "exclusiveMinimum": 0}},
    "additionalProperties": False,
}


@laconic.hookimpl
def laconic_pruners() -> list[laconic.PrunerInfo]:
    """Return the pruning algorithm."""
    return [
        laconic.PrunerInfo(
            name="relative_importance",
            implementation="laconic_ria.algorithms:RelativeImportance",
            options=POWER,
            summary="Share of the row plus share of the column.",
            paper="Zhang et al., ICLR 2024",
        )
    ]


@laconic.hookimpl
def laconic_granularities() -> list[laconic.GranularityInfo]:
    """Return the granularity."""
    return [
        laconic.GranularityInfo(
            name="row_pair",
            implementation="laconic_ria.algorithms:RowPair",
            summary="Two neighbouring rows.",
        )
    ]


@laconic.hookimpl
def laconic_quantizers() -> list[laconic.QuantizerInfo]:
    """Return the quantization algorithm."""
    return [
        laconic.QuantizerInfo(
            name="power_of_two",
            implementation="laconic_ria.algorithms:PowerOfTwo",
            needs="activations",
            summary="Post-training; scales are powers of two.",
        )
    ]


@laconic.hookimpl
def laconic_distillation_losses() -> list[laconic.LossInfo]:
    """Return the loss."""
    return [
        laconic.LossInfo(
            name="log_cosh",
            implementation="laconic_ria.algorithms:log_cosh",
            summary="Mean log-cosh of the difference.",
        )
    ]
