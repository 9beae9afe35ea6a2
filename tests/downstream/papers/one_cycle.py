"""Hubens et al., One-Cycle Pruning: Pruning Convnets with Tight Training Budget, ICIP 2022,
equation 2: sparsity along a sigmoid, whose middle and steepness are options.
"""

import math

import tersely


def one_cycle(progress: float, *, slope: float = 14.0, offset: float = 5.0) -> float:
    """Return ``(1 + e^(offset - slope)) / (1 + e^(offset - slope * progress))``, from 0 on."""
    if progress <= 0:
        return 0.0
    return (1 + math.exp(offset - slope)) / (1 + math.exp(offset - slope * float(progress)))


@tersely.hookimpl
def tersely_schedules():
    return [
        tersely.ScheduleInfo(
            name="one_cycle",
            implementation="one_cycle:one_cycle",
            summary="Along a sigmoid.",
            paper="Hubens et al., One-Cycle Pruning, ICIP 2022",
            options={
                "type": "object",
                "properties": {
                    "slope": {"type": "number", "exclusiveMinimum": 0, "default": 14.0},
                    "offset": {"type": "number", "minimum": 0, "default": 5.0},
                },
                "additionalProperties": False,
                "examples": [{"slope": 10.0, "offset": 5.0}],
            },
        )
    ]
