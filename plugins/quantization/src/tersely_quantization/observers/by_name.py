"""The observers that the quantizers of this package offer by name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import tersely
from tersely_quantization.observers.divergence import divergence_range
from tersely_quantization.observers.histogram import BINS, HistogramObserver
from tersely_quantization.observers.moving_average import DECAY, MovingAverage
from tersely_quantization.observers.percentile import SHARE, percentile_range
from tersely_quantization.observers.squared_error import squared_error_range


def make_observer(name: str, options: Mapping[str, Any] | None = None) -> tersely.Observer:
    """Return a new observer.

    Args:
        name: ``min_max``, ``moving_average``, ``percentile``, ``histogram`` or ``mse``.
        options: its options: ``decay`` for ``moving_average``, ``percentile`` for
            ``percentile``, ``bins`` for the last three.

    Raises:
        ValueError: there is no such observer, or it does not have these options.
    """
    if name not in _MAKERS:
        raise ValueError(f"no observer is called {name!r}; there are {', '.join(_MAKERS)}")
    try:
        return _MAKERS[name](**(options or {}))
    except TypeError as error:
        raise ValueError(f"observer {name!r}: {error}") from error


def _percentile(*, percentile: float = SHARE, bins: int = BINS) -> HistogramObserver:
    find = functools.partial(percentile_range, percentile=percentile)
    return HistogramObserver(find, bins=bins)


def _moving_average(*, decay: float = DECAY) -> MovingAverage:
    return MovingAverage(decay=decay)


def _histogram(*, bins: int = BINS) -> HistogramObserver:
    return HistogramObserver(divergence_range, bins=bins)


def _mse(*, bins: int = BINS) -> HistogramObserver:
    return HistogramObserver(squared_error_range, bins=bins)


_MAKERS: Mapping[str, Callable[..., tersely.Observer]] = {
    "min_max": tersely.MinMax,
    "moving_average": _moving_average,
    "percentile": _percentile,
    "histogram": _histogram,
    "mse": _mse,
}
