"""Names next to the points of a plot, without overlap if there is room."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point: TypeAlias = tuple[float, float]
Box: TypeAlias = tuple[float, float, float, float]
"""Left, bottom, right, top."""

_CHARACTER, _LINE = 6.4, 14.0
"""Points that a character of ten-point text takes in width, and a line in height, in any font."""
_GAP, _DOT = 7.0, 5.0
_RINGS = 12


def label_points(
    figure: Figure,
    axes: Axes,
    *,
    names: Sequence[str],
    points: Sequence[Point],
    line_colour: str,
) -> None:
    """Place names next to points; one that is further away is joined to its point by a line.

    Args:
        figure: what holds the axes.
        axes: with the limits and the place that they will be drawn with.
        names: one for each point.
        points: in data coordinates.
        line_colour: of the lines.
    """
    figure.draw_without_rendering()  # lays the axes out
    scale = 72 / figure.dpi
    pixels = [axes.transData.transform(point) for point in points]
    dots = [(float(x) * scale, float(y) * scale) for x, y in pixels]
    frame = axes.get_window_extent()
    bounds = (frame.x0 * scale, frame.y0 * scale, frame.x1 * scale, frame.y1 * scale)
    boxes = place_labels(dots, [_CHARACTER * len(name) for name in names], bounds=bounds)
    for name, point, dot, box in zip(names, points, dots, boxes, strict=True):
        is_apart = abs((box[1] + box[3]) / 2 - dot[1]) > _LINE
        line = {"arrowstyle": "-", "linewidth": 0.6, "color": line_colour, "shrinkB": _DOT}
        side, edge = _anchor(dot, box)
        axes.annotate(
            name,
            point,
            xytext=(edge - dot[0], box[1] - dot[1] + _LINE / 4),
            horizontalalignment=side,
            textcoords="offset points",
            arrowprops=line if is_apart else None,
        ).set_in_layout(False)


def place_labels(dots: Sequence[Point], widths: Sequence[float], *, bounds: Box) -> list[Box]:
    """Return the places of labels: as near to their points as keeps everything readable.

    Args:
        dots: where the points are.
        widths: of the labels.
        bounds: what the labels stay inside of.
    """
    taken = [(x - _DOT, y - _DOT, x + _DOT, y + _DOT) for x, y in dots]
    found: list[Box] = []
    for dot, width in zip(dots, widths, strict=True):
        found.append(_most_visible(_choices(dot, width), [*taken, *found], bounds))
    return found


def _most_visible(choices: Iterator[Box], others: Sequence[Box], bounds: Box) -> Box:
    """Return the first of those of which least is hidden."""
    best, least = next(choices), math.inf
    for box in itertools.chain([best], choices):
        hidden = _outside(box, bounds)
        for other in others:
            if hidden >= least:
                break
            hidden += _common(box, other)
        if hidden < least:
            best, least = box, hidden
        if least == 0:
            break
    return best


def _anchor(dot: Point, box: Box) -> tuple[str, float]:
    """Return which end of a label stays where it is in a narrower font, and where that is."""
    if box[0] >= dot[0]:
        return "left", box[0]
    return ("right", box[2]) if box[2] <= dot[0] else ("center", (box[0] + box[2]) / 2)


def _choices(dot: Point, width: float) -> Iterator[Box]:
    """Yield places for a label, the nearest first: right, left or in the middle, up and down."""
    x, y = dot
    for ring, sign in itertools.product(range(_RINGS), (1, -1)):
        middle = y + sign * (ring + 0.5) * _LINE * 0.6
        for left in (x + _GAP, x - _GAP - width, x - width / 2):
            yield (left, middle - _LINE / 2, left + width, middle + _LINE / 2)


def _outside(box: Box, bounds: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1]) - _common(box, bounds)


def _common(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    if width <= 0:
        return 0.0
    return width * max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
