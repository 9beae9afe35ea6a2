"""Compressing a model for the duration of a block, and the data that its algorithms observe."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
from torch import nn

from tersely.engine.observation.batches import Forward
from tersely.engine.observation.padding import PaddingMask
from tersely.json_value import Json
from tersely.searching.recorded_calls import padding_of, replay, see
from tersely.session.attaching import attach
from tersely.session.session import Session


@attrs.frozen(kw_only=True, eq=False)
class CalibrationData:
    """What algorithms observe.

    Attributes:
        batches: the batches; empty if nothing is observed.
        forward: called as forward(model, batch), or None for the default.
        mask: how to find which positions of a batch are data.
    """

    batches: Sequence[Any] = ()
    forward: Forward | None = None
    mask: PaddingMask | None = None


def calls_of(model: nn.Module, modules: Sequence[str], data: CalibrationData) -> CalibrationData:
    """Return the calls of some modules in the dense model, for algorithms to observe.

    Args:
        model: the dense model, in evaluation mode.
        modules: names of the modules that are compressed; all others stay dense.
        data: the batches of the whole model.

    Returns:
        The calls; or the whole batches, if the weights of a module are read without a call.
    """
    if not data.batches:
        return data
    seen = see(model, modules, data.batches, forward=data.forward, mask=data.mask)
    if seen is None:
        return data
    return CalibrationData(batches=seen, forward=replay, mask=padding_of)


def compress(
    model: nn.Module,
    recipe: Mapping[str, Json],
    data: CalibrationData,
    *,
    example_inputs: Any = None,
) -> Session:
    """Compress a model as a recipe says; an error leaves it unchanged.

    Warnings of the session are suppressed, since a search tries many settings that are too strong.

    Args:
        model: the dense model.
        recipe: the recipe, without training.
        data: what algorithms observe.
        example_inputs: as for `tersely.attach`.
    """
    with contextlib.ExitStack() as undoing, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        session = attach(model, recipe, example_inputs=example_inputs)
        undoing.callback(session.detach)
        if data.batches:
            session.calibrate(data.batches, forward=data.forward, mask=data.mask)
        session.compress()
        undoing.pop_all()
    return session


@contextlib.contextmanager
def compressed(
    model: nn.Module, recipe: Mapping[str, Json], data: CalibrationData
) -> Iterator[Session]:
    """Compress a model as a recipe says inside the block, and restore the dense model after it.

    Args:
        model: the dense model.
        recipe: the recipe, without training.
        data: what algorithms observe.
    """
    session = compress(model, recipe, data)
    try:
        yield session
    finally:
        session.detach()
