"""Sensitivity analysis: each layer compressed alone, at each level, and measured."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from torch import nn

from tersely.calibration.observing import evaluating
from tersely.document.recipe import Recipe
from tersely.engine.observation.batches import Forward
from tersely.engine.observation.padding import PaddingMask
from tersely.errors import CalibrationError, PlanError
from tersely.json_value import Json
from tersely.planning.resolve import resolve
from tersely.searching.chosen_recipes import chosen_at_once
from tersely.searching.compressing import CalibrationData, calls_of, compressed
from tersely.searching.output_error import DenseOutputs
from tersely.searching.quality import (
    Evaluate,
    Quality,
    quality_by_evaluation,
    quality_by_output,
)
from tersely.searching.sensitivity.measured import Measured
from tersely.searching.sensitivity.measurements import MeasurementFile
from tersely.searching.sensitivity.result import Sensitivity
from tersely.searching.units import BITS, RATIOS, Level, Unit, units_of
from tersely.storage.digests import digest_of_batches, digest_of_data, digest_of_model

Watching = Callable[[int, int], object]
"""Called as watching(done, total) after each measurement."""


def sensitivity(  # noqa: PLR0913  # what is compressed, with what, and how it is measured
    model: nn.Module,
    recipe: Recipe | Mapping[str, Json] | str | os.PathLike[str],
    *,
    data: Iterable[Any] = (),
    forward: Forward | None = None,
    mask: PaddingMask | None = None,
    evaluate: Evaluate | None = None,
    metric: str | None = None,
    is_cost: bool = False,
    ratios: Sequence[float] = RATIOS,
    bits: Sequence[int] = BITS,
    example_inputs: Any = None,
    path: str | os.PathLike[str] | None = None,
    watching: Watching | None = None,
) -> Sensitivity:
    """Compress each layer alone at several levels, and measure the loss of quality.

    The recipe names the layers, algorithms and granularities; ``ratios`` and ``bits`` replace its
    sparse ratios and the bit widths of its weights. Layers that can only change together, by
    ``align`` or as a dependency group, count as one. The algorithm of a layer observes that layer
    alone, with the calls that the dense model makes.

    Args:
        model: the dense model; it is unchanged afterwards.
        recipe: a loaded recipe, its data, or the path of its file. Schedules, shrinking and
            distillation are ignored.
        data: batches for calibration; without ``evaluate``, also those on which outputs are
            compared.
        forward: called as forward(model, batch); see `Session.calibrate`.
        mask: which positions of a batch are data; see `Session.calibrate`.
        evaluate: takes the model and returns a number or a mapping of names to numbers. Without it,
            the relative error of the model's output is measured.
        metric: the name of the number to use; the first by default.
        is_cost: whether lower values are better.
        ratios: the sparse ratios to try.
        bits: the bit widths of weights to try.
        example_inputs: as for `tersely.attach`.
        path: a file to which each measurement is appended, and from which a later call with the
            same model and arguments continues.
        watching: called after each measurement with the number done and the total.

    Raises:
        ConfigError: the recipe is wrong.
        PlanError: it does not fit the model, or leaves nothing to vary.
        CalibrationError: there is neither ``evaluate`` nor a batch, or an algorithm observed too
            little.
        SessionFileError: ``path`` holds measurements of something else.
    """
    batches = CalibrationData(batches=tuple(data), forward=forward, mask=mask)
    if evaluate is None and not batches.batches:
        raise CalibrationError(
            "sensitivity measures by evaluate, or by the error of outputs on data; give one of them"
        )
    plan, _ = resolve(model, recipe, example_inputs=example_inputs)
    units = units_of(plan, ratios=ratios, bits=bits)
    if not units:
        raise PlanError(
            "the recipe prunes and quantizes nothing of this model, so no layer can be measured"
        )
    subject = {
        "model": digest_of_model(model),
        "recipe": digest_of_data(plan.recipe.document),
        "data": digest_of_batches(list(batches.batches)),
        "levels": digest_of_data([[unit.key, *map(str, unit.levels)] for unit in units]),
        "quality": digest_of_data([evaluate is not None, metric, is_cost]),
    }
    known = MeasurementFile(None if path is None else Path(path), subject)
    with evaluating(model):
        quality = _quality(model, batches, evaluate, metric=metric, is_cost=is_cost)
        trial = _Trial(model=model, recipe=plan.recipe, quality=quality)
        total = sum(len(unit.levels) for unit in units)
        found: list[Measured] = []
        for unit in units:
            own: CalibrationData | None = None
            for level in unit.levels:
                key = f"{unit.key}: {level}"
                if known.get(key) is None:
                    own = own or calls_of(model, unit.modules, batches)
                    value = trial.measure(unit, level, own)
                    known.add(key, {"value": repr(value)})
                found.append(_measured(unit, level, float(known.get(key)["value"]), quality))
                if watching is not None:
                    watching(len(found), total)
    return Sensitivity(quality=quality.name, dense=quality.dense, measured=tuple(found))


@attrs.frozen(kw_only=True, eq=False)
class _Trial:
    model: nn.Module
    recipe: Recipe
    quality: Quality

    def measure(self, unit: Unit, level: Level, data: CalibrationData) -> float:
        recipe = chosen_at_once(self.recipe, [(unit, level)])
        with compressed(self.model, recipe, data):
            return self.quality.measure(self.model)


def _quality(
    model: nn.Module,
    data: CalibrationData,
    evaluate: Evaluate | None,
    *,
    metric: str | None,
    is_cost: bool,
) -> Quality:
    if evaluate is not None:
        return quality_by_evaluation(model, evaluate, metric=metric, is_cost=is_cost)
    outputs = DenseOutputs.of(model, tuple(data.batches), forward=data.forward, mask=data.mask)
    return quality_by_output(outputs)


def _measured(unit: Unit, level: Level, value: float, quality: Quality) -> Measured:
    return Measured(
        layer=unit.label,
        modules=unit.modules,
        method=unit.method,
        key=level.key,
        level=level.value,
        value=value,
        drop=quality.drop_of(value),
    )
