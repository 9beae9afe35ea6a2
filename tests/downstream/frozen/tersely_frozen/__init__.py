"""The face of tersely-frozen: one plugin of each kind, as plugin API 1.1 has them."""

import tersely

__version__ = "1.0"
tersely_api = (1, 1)

POWER = {
    "type": "object",
    "properties": {"power": {"type": "number", "exclusiveMinimum": 0}},
    "additionalProperties": False,
    "examples": [{"power": 2}],
}


@tersely.hookimpl
def tersely_pruners() -> list[tersely.PrunerInfo]:
    """Return the pruning algorithms."""
    return [
        tersely.PrunerInfo(
            name="frozen_importance",
            implementation="tersely_frozen.algorithms:RelativeImportance",
            options=POWER,
            summary="Share of the row plus share of the column.",
            paper="Zhang et al., ICLR 2024",
            needs="nothing",
            target_kinds=("parameter",),
            default_granularity="element",
        ),
        tersely.PrunerInfo(
            name="frozen_inputs",
            implementation="tersely_frozen.algorithms:InputNorm",
            summary="Magnitude times the squared length of the input.",
            target_kinds=("parameter",),
        ),
    ]


@tersely.hookimpl
def tersely_granularities() -> list[tersely.GranularityInfo]:
    """Return the granularity."""
    return [
        tersely.GranularityInfo(
            name="frozen_row_pair",
            implementation="tersely_frozen.algorithms:RowPair",
            summary="Two neighbouring rows.",
            target_kinds=("parameter", "buffer"),
        )
    ]


@tersely.hookimpl
def tersely_quantizers() -> list[tersely.QuantizerInfo]:
    """Return the quantization algorithm."""
    return [
        tersely.QuantizerInfo(
            name="frozen_power_of_two",
            implementation="tersely_frozen.algorithms:PowerOfTwo",
            needs="activations",
            summary="Post-training; scales are powers of two.",
            default_granularity="output_channel",
            default_scheme="symmetric",
        )
    ]


@tersely.hookimpl
def tersely_distillation_losses() -> list[tersely.LossInfo]:
    """Return the loss."""
    return [
        tersely.LossInfo(
            name="frozen_log_cosh",
            implementation="tersely_frozen.algorithms:log_cosh",
            summary="Mean log-cosh of the difference.",
        )
    ]


@tersely.hookimpl
def tersely_schedules() -> list[tersely.ScheduleInfo]:
    """Return the schedule."""
    return [
        tersely.ScheduleInfo(
            name="frozen_square",
            implementation="tersely_frozen.algorithms:square",
            summary="The square of the progress.",
        )
    ]


@tersely.hookimpl
def tersely_exporters() -> list[tersely.ExporterInfo]:
    """Return the export format."""
    return [
        tersely.ExporterInfo(
            name="frozen_arrays",
            implementation="tersely_frozen.arrays:Arrays",
            suffix=".npz",
            summary="NumPy arrays: integers where weights are quantized, floats elsewhere.",
        )
    ]


@tersely.hookimpl
def tersely_module_settings() -> list[tersely.ModuleSetting]:
    """Return the default targets of a module type of its own."""
    return [
        tersely.ModuleSetting(
            module_type="tersely_frozen.algorithms.Scaled",
            pruning={"scales": {}},
            output_dim=0,
        )
    ]
