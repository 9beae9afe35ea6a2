"""The face of tersely-ria: plugins of each kind; imports no torch."""

import tersely

tersely_api = 1
POWER = {
    "type": "object",
    "properties": {"power": {"type": "number", "exclusiveMinimum": 0}},
    "additionalProperties": False,
}


@tersely.hookimpl
def tersely_pruners() -> list[tersely.PrunerInfo]:
    """Return the pruning algorithms."""
    return [
        tersely.PrunerInfo(
            name="relative_importance",
            implementation="tersely_ria.algorithms:RelativeImportance",
            options=POWER,
            summary="Share of the row plus share of the column.",
            paper="Zhang et al., ICLR 2024",
        ),
        tersely.PrunerInfo(
            name="relative_importance_permuted",
            implementation="tersely_ria.permuting:PermutedImportance",
            abilities=("OrdersInputs",),
            options=POWER,
            target_kinds=("parameter",),
            summary="The same, with inputs in an order that lets a pattern keep more.",
            paper="Zhang et al., ICLR 2024",
        ),
    ]


@tersely.hookimpl
def tersely_granularities() -> list[tersely.GranularityInfo]:
    """Return the granularities."""
    return [
        tersely.GranularityInfo(
            name="row_pair",
            implementation="tersely_ria.algorithms:RowPair",
            summary="Two neighbouring rows.",
        ),
        tersely.GranularityInfo(
            name="one_of_two",
            implementation="tersely_ria.permuting:OneOfTwo",
            summary="One of every two neighbouring inputs is kept.",
        ),
    ]


@tersely.hookimpl
def tersely_quantizers() -> list[tersely.QuantizerInfo]:
    """Return the quantization algorithm."""
    return [
        tersely.QuantizerInfo(
            name="power_of_two",
            implementation="tersely_ria.algorithms:PowerOfTwo",
            needs="activations",
            summary="Post-training; scales are powers of two.",
        )
    ]


@tersely.hookimpl
def tersely_distillation_losses() -> list[tersely.LossInfo]:
    """Return the loss."""
    return [
        tersely.LossInfo(
            name="log_cosh",
            implementation="tersely_ria.algorithms:log_cosh",
            summary="Mean log-cosh of the difference.",
        )
    ]


@tersely.hookimpl
def tersely_exporters() -> list[tersely.ExporterInfo]:
    """Return the export format."""
    return [
        tersely.ExporterInfo(
            name="arrays",
            implementation="tersely_ria.arrays:Arrays",
            suffix=".npz",
            summary="NumPy arrays: integers where weights are quantized, floats elsewhere.",
        )
    ]
