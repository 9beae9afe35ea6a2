"""A model that is compressed for as long as a block lasts, and dense again after it."""

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
        batches: the batches; empty where nothing is observed.
        forward: called as forward(model, batch), or None for the default.
        mask: how to find which positions of a batch are data.
    """

    batches: Sequence[Any] = ()
    forward: Forward | None = None
    mask: PaddingMask | None = None


def calls_of(model: nn.Module, modules: Sequence[str], data: CalibrationData) -> CalibrationData:
    """Return what algorithms of some modules observe: their own calls in the dense model.

    Args:
        model: the dense model, in evaluation mode.
        modules: names of the modules that are compressed, while everything else stays dense.
        data: the batches of the whole model.

    Returns:
        The calls; the whole batches where the weights of a module are read without a call.
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
    """Compress a model as a recipe says; after an error it is as it was.

    What the session warns of is left out: a search tries much that is too much.

    Args:
        model: the dense model.
        recipe: what to do, without training.
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
    """Compress a model as a recipe says, and give the dense model back at the end.

    Args:
        model: the dense model.
        recipe: what to do, without training.
        data: what algorithms observe.
    """
    session = compress(model, recipe, data)
    try:
        yield session
    finally:
        session.detach()
