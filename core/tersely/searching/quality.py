"""How good a model is: by the user's evaluation, or by the error of its outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
from torch import nn

from tersely.errors import CalibrationError
from tersely.searching.output_error import DenseOutputs
from tersely.text import did_you_mean

Evaluate = Callable[[nn.Module], Any]
"""Takes the model and returns a number or a mapping of names to numbers."""

OUTPUT_ERROR = "output error"
"""The name of the measure that is used without an evaluation."""


@attrs.frozen(kw_only=True, eq=False)
class Quality:
    """The measure by which compressed models are compared.

    Attributes:
        name: what is measured, such as ``accuracy``.
        dense: the dense model's value; 0 for an error.
        measure: takes the model and returns the value.
        is_cost: whether lower values are better.
    """

    name: str
    dense: float
    measure: Callable[[nn.Module], float]
    is_cost: bool

    def drop_of(self, value: float) -> float:
        """Return how much worse than the dense model a value is, in percent; negative if better.

        An error is returned as it is; a metric is compared relative to the dense model's.

        Args:
            value: what `measure` returned.
        """
        if not math.isfinite(value):
            return math.inf
        worse = value - self.dense if self.is_cost else self.dense - value
        return 100 * worse / (abs(self.dense) or 1)


def quality_by_output(outputs: DenseOutputs) -> Quality:
    """Return the measure by the relative error of the model's outputs.

    Args:
        outputs: the dense model's outputs.
    """
    return Quality(name=OUTPUT_ERROR, dense=0.0, measure=outputs.error_of, is_cost=True)


def quality_by_evaluation(
    model: nn.Module, evaluate: Evaluate, *, metric: str | None = None, is_cost: bool = False
) -> Quality:
    """Return the measure by the user's evaluation, which is called once on the dense model.

    Args:
        model: the dense model.
        evaluate: takes the model and returns a number or a mapping of names to numbers.
        metric: the name of the number to use; the first by default.
        is_cost: whether lower values are better.

    Raises:
        CalibrationError: the number is missing, or it is not finite.
    """
    found = evaluate(model)
    name = metric
    if name is None:
        name = next(iter(found)) if isinstance(found, Mapping) and found else "quality"
    dense = _number(found, name)
    if not math.isfinite(dense):
        raise CalibrationError(
            f"evaluate returned {dense} as {name} of the dense model, so nothing can be compared "
            "with it; choose a finite metric, or leave evaluate out"
        )
    return Quality(
        name=name, dense=dense, measure=lambda one: _number(evaluate(one), name), is_cost=is_cost
    )


def _number(found: Any, name: str) -> float:
    if isinstance(found, Mapping):
        if name not in found:
            raise CalibrationError(_missing(name, found))
        found = found[name]
    try:
        return float(found)
    except (TypeError, ValueError) as error:
        raise CalibrationError(
            f"evaluate returned a {type(found).__name__} as {name}, expected a number"
        ) from error


def _missing(name: str, found: Iterable[str]) -> str:
    hint = did_you_mean(name, list(found))
    names = ", ".join(found)
    return f"evaluate returned no {name!r}, only {names}" + (f" ({hint})" if hint else "")
