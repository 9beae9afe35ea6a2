"""The face of tersely-lamp: a pruner and a schedule; imports no torch."""

import tersely

tersely_api = 1


@tersely.hookimpl
def tersely_pruners() -> list[tersely.PrunerInfo]:
    """Return the pruning algorithm."""
    return [
        tersely.PrunerInfo(
            name="lamp",
            implementation="tersely_lamp.scores:Lamp",
            abilities=("MakesNewScores",),
            target_kinds=("parameter",),
            default_scope="global",
            summary="Squared weights, as shares of all that are at least as large in the layer.",
            paper="Lee et al., ICLR 2021",
        )
    ]


@tersely.hookimpl
def tersely_schedules() -> list[tersely.ScheduleInfo]:
    """Return the schedule."""
    return [
        tersely.ScheduleInfo(
            name="cosine",
            implementation="tersely_lamp.curve:cosine",
            summary="Half a period of a cosine: slow, fast, slow.",
        )
    ]
