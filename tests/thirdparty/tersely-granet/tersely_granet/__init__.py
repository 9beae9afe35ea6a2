"""The face of tersely-granet: two pruners and a schedule; imports no torch."""

import tersely

tersely_api = 1
_SHARE = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}
_OPTIONS = {
    "type": "object",
    "properties": {"share": _SHARE},
    "additionalProperties": False,
}


@tersely.hookimpl
def tersely_pruners() -> list[tersely.PrunerInfo]:
    """Return the pruning algorithms."""
    abilities = ("ObservesDenseGradients", "RegrowsFromZero")
    return [
        tersely.PrunerInfo(
            name="rigl",
            implementation="tersely_granet.regrowing:RigL",
            abilities=abilities,
            options=_OPTIONS,
            target_kinds=("parameter",),
            granularities=("default",),
            summary="Random masks whose smallest weights make room for the largest gradients.",
            paper="Evci et al., ICML 2020",
        ),
        tersely.PrunerInfo(
            name="granet",
            implementation="tersely_granet.regrowing:GraNet",
            abilities=abilities,
            options=_OPTIONS,
            target_kinds=("parameter",),
            granularities=("default",),
            summary="Gradual magnitude pruning that lets weights come back by their gradients.",
            paper="Liu et al., NeurIPS 2021",
        ),
    ]


@tersely.hookimpl
def tersely_schedules() -> list[tersely.ScheduleInfo]:
    """Return the schedule."""
    return [
        tersely.ScheduleInfo(
            name="constant",
            implementation="tersely_granet.curve:constant",
            summary="All of the sparsity from the beginning on.",
        )
    ]
