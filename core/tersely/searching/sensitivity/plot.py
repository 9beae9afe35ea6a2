"""The plot of a sensitivity analysis: a row for each layer, a mark for each level."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from tersely.extras import extra
from tersely.searching.sensitivity.measured import Measured
from tersely.searching.units import spell_level

with extra("report", purpose="a plot"):
    import matplotlib as mpl
    from matplotlib.figure import Figure

_MARKS = "osD^vP*X"
_ROW = 0.3  # inches
_SPREAD = 0.5
"""The share of a row over which marks are spread, so that equal losses do not hide each other."""


def draw(
    measured: Sequence[Measured],
    path: str | os.PathLike[str],
    *,
    layers: Mapping[str, Sequence[str]],
    scale: str,
) -> None:
    """Draw a sensitivity analysis.

    Args:
        measured: the measurements.
        path: the file; its ending decides the format.
        layers: method -> its layers, from top to bottom.
        scale: the label of the horizontal axis.
    """
    height = 1 + sum(1.2 + _ROW * len(one) for one in layers.values())
    figure = Figure(figsize=(7.5, height), layout="constrained")
    ratios = [4 + len(one) for one in layers.values()]
    places = figure.subplots(len(layers), 1, squeeze=False, height_ratios=ratios)
    for axes, (method, names) in zip(places[:, 0], layers.items(), strict=True):
        _draw_method(axes, [one for one in measured if one.method == method], names)
        axes.set_title(method)
        axes.set_xlabel(scale)
    title = f"Sensitivity of each layer: {scale}"
    with mpl.rc_context({"svg.fonttype": "none"}):  # text that can be searched and read aloud
        is_svg = str(path).endswith(".svg")
        figure.savefig(path, metadata={"Date": None, "Title": title} if is_svg else None)


def _draw_method(axes: Any, measured: Sequence[Measured], layers: Sequence[str]) -> None:
    height = {layer: place for place, layer in enumerate(reversed(layers))}
    levels = dict.fromkeys((one.key, one.level) for one in measured)
    lowest = _SPREAD / 2 if len(levels) > 1 else 0
    for number, level in enumerate(levels):
        offset = lowest - _SPREAD * number / max(len(levels) - 1, 1)
        marked = [one for one in measured if (one.key, one.level) == level]
        marked = [one for one in marked if math.isfinite(one.drop)]
        axes.plot(
            [one.drop for one in marked],
            [height[one.layer] + offset for one in marked],
            linestyle="none",
            marker=_MARKS[number % len(_MARKS)],
            markersize=5,
            label=spell_level(*level),
        )
    axes.set_xscale("symlog", linthresh=0.1)  # a metric may rise too
    axes.set_yticks(range(len(layers)), tuple(reversed(layers)), fontsize=7)
    axes.set_ylim(-0.7, len(layers) - 0.3)
    axes.grid(axis="both", alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8, frameon=False)
