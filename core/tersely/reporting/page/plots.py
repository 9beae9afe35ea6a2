"""The plots of a report as SVG text that takes its colours from the page's style sheet."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tersely.extras import extra
from tersely.reporting.page.point_labels import label_points
from tersely.reporting.page.short_names import short_names, shorten
from tersely.reporting.rows import Moment, ReportRow

with extra("report", purpose="a report's page"):
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Drawn in these, then replaced by CSS variables, so that one picture serves light and dark pages.
_INK, _FAINT, _BAR, _LOST, _MARK = "#010203", "#040506", "#070809", "#0a0b0c", "#0d0e0f"
_VARIABLES = {
    _INK: "var(--ink-soft)",
    _FAINT: "var(--line)",
    _BAR: "var(--accent)",
    _LOST: "var(--alarm)",
    _MARK: "var(--ink)",
}
_SETTINGS: dict[Any, Any] = {  # rc_context spells out three hundred key literals
    "svg.fonttype": "none",
    "svg.hashsalt": "tersely",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _FAINT,
}
_WIDE, _MIDDLE, _NARROW = 13.0, 7.0, 4.5
"""Inches at which ten-point text has its size on a page of full, three fifths, two fifths width;
the last is that of a telephone, too."""
_NAMED_ROWS = 40
_LABEL_LENGTH = 34
_TIGHT_LABEL = 16
_TICKS = 16
_TIGHT_TICKS = 5
_SEPARATE_COLUMNS = 400


def plot_sparsity(rows: Sequence[ReportRow], *, tight: bool) -> str:
    """Draw the sparsity of every pruned target; many targets are drawn as narrow columns.

    Args:
        rows: rows with a sparsity, in the plan's order.
        tight: whether it is for a page as narrow as a telephone.

    Returns:
        An ``<svg>`` element.
    """
    with mpl.rc_context(_SETTINGS):  # read again when the figure is drawn
        draw = _draw_columns if len(rows) > _NAMED_ROWS else _draw_bars
        name = "sparsity-tight" if tight else "sparsity"
        return _svg(draw(rows, tight), name=name, title="Sparsity of every pruned target")


def plot_metrics(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Draw every measure at the moments it was taken, each on a scale of its own.

    Args:
        metrics: measure -> moment -> value.

    Returns:
        An ``<svg>`` element.
    """
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(_NARROW, 0.3 + 1.35 * len(metrics)), layout="constrained")
        axes = figure.subplots(len(metrics), 1, squeeze=False)[:, 0]
        for place, (measure, values) in zip(axes, metrics.items(), strict=True):
            _draw_measure(place, measure, values)
        return _svg(figure, name="metrics", title="Measurements before and after")


def plot_history(history: Sequence[Moment], *, tight: bool) -> str:
    """Draw how the sparsity grew over the steps.

    Args:
        history: at least two moments.
        tight: whether it is for a page as narrow as a telephone.

    Returns:
        An ``<svg>`` element.
    """
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(_NARROW if tight else _MIDDLE, 3.0), layout="constrained")
        axes = figure.subplots()
        steps = [moment.step for moment in history]
        values = [100 * moment.sparsity for moment in history]
        axes.step(steps, values, where="post", color=_BAR, linewidth=2)
        axes.plot(steps, values, "o", color=_BAR, markersize=4)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("masked, %")
        axes.set_ylim(0, max(5.0, 1.12 * max(values)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", linewidth=0.6)
        _strip(axes)
        name = "history-tight" if tight else "history"
        return _svg(figure, name=name, title="Sparsity over the steps")


def plot_pareto(
    names: Sequence[str],
    *,
    costs: Sequence[float],
    qualities: Sequence[float],
    best: Sequence[bool],
    labels: tuple[str, str],
    tight: bool,
) -> str:
    """Draw runs by cost and quality.

    Args:
        names: of the runs.
        costs: of each run.
        qualities: of each run.
        best: of each run, whether no other one beats it.
        labels: what cost and quality are.
        tight: whether it is for a page as narrow as a telephone.

    Returns:
        An ``<svg>`` element.
    """
    with mpl.rc_context(_SETTINGS):
        size = (_NARROW, 3.2) if tight else (_WIDE, 4.2)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        for cost, quality, is_best in zip(costs, qualities, best, strict=True):
            fill = _BAR if is_best else "none"
            axes.plot(cost, quality, "o", color=_BAR, markerfacecolor=fill, markersize=7)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.xaxis.set_major_locator(MaxNLocator(_TIGHT_TICKS if tight else _TICKS))
        axes.margins(0.15)
        axes.grid(linewidth=0.6)
        _strip(axes)
        short = [shorten(name, _TIGHT_LABEL if tight else _LABEL_LENGTH) for name in names]
        points = list(zip(costs, qualities, strict=True))
        label_points(figure, axes, names=short, points=points, line_colour=_INK)
        return _svg(
            figure, name="pareto-tight" if tight else "pareto", title="Runs by cost and quality"
        )


def _draw_bars(rows: Sequence[ReportRow], tight: bool) -> Figure:
    width = _NARROW if tight else _WIDE
    figure = Figure(figsize=(width, 0.7 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows))
    axes.barh(places, _percents(rows), height=0.62, color=_colours(rows))
    axes.set_yticks(places, _labels(rows, _TIGHT_LABEL if tight else _LABEL_LENGTH))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 108)
    for place, row in enumerate(rows):
        value = 100 * (row.sparsity or 0)
        edge = max(value, 100 * (row.requested or 0))
        axes.text(edge + 1, place, f"{value:.1f}", va="center")
        if row.requested is not None:
            mark = 100 * row.requested
            axes.plot([mark, mark], [place - 0.42, place + 0.42], color=_MARK, linewidth=1.6)
    axes.set_xlabel("masked, % (mark: asked for)")
    axes.grid(axis="x", linewidth=0.6)
    _strip(axes)
    axes.tick_params(axis="y", length=0)
    return figure


def _draw_columns(rows: Sequence[ReportRow], tight: bool) -> Figure:
    size = (_NARROW, 3.6) if tight else (_WIDE, 4.2)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    places = range(len(rows))
    if len(rows) <= _SEPARATE_COLUMNS:
        axes.bar(places, _percents(rows), width=0.8, color=_colours(rows))
    else:
        axes.fill_between(places, _percents(rows), step="mid", color=_BAR, linewidth=0)
        lost = [place for place, row in enumerate(rows) if row.missed]
        axes.plot(lost, [101.0] * len(lost), "v", color=_LOST, markersize=6)
    asked = [math.nan if row.requested is None else 100 * row.requested for row in rows]
    if not all(math.isnan(value) for value in asked):
        axes.step(places, asked, where="mid", color=_MARK, linewidth=1.0)
    every = math.ceil(len(rows) / (_TIGHT_TICKS if tight else _TICKS))
    axes.set_xticks(
        places[::every],
        _labels(rows, _TIGHT_LABEL if tight else _LABEL_LENGTH)[::every],
        rotation=30,
        ha="right",
        rotation_mode="anchor",
    )
    axes.set_xlim(-1, len(rows))
    axes.set_ylim(0, 105)
    axes.set_ylabel("masked, % (line: asked for)")
    axes.grid(axis="y", linewidth=0.6)
    _strip(axes)
    return figure


def _draw_measure(axes: Axes, measure: str, values: Mapping[str, float]) -> None:
    names = [moment or "value" for moment in values]
    numbers = [0.0 if not math.isfinite(value) else value for value in values.values()]
    axes.barh(range(len(names)), numbers, height=0.6, color=_BAR)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    low, high = min(0.0, *numbers), max(0.0, *numbers)
    span = (high - low) or 1.0
    axes.set_xlim(low, high + 0.28 * span)
    for place, (value, number) in enumerate(zip(values.values(), numbers, strict=True)):
        axes.text(max(number, 0) + 0.02 * span, place, f"{value:.4g}", va="center")
    axes.set_title(measure, loc="left", fontsize=10, fontweight="bold", color=_INK)
    axes.set_xticks([])
    _strip(axes)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _percents(rows: Sequence[ReportRow]) -> list[float]:
    return [100 * (row.sparsity or 0) for row in rows]


def _colours(rows: Sequence[ReportRow]) -> list[str]:
    return [_LOST if row.missed else _BAR for row in rows]


def _labels(rows: Sequence[ReportRow], length: int) -> list[str]:
    return short_names([row.name for row in rows], length)


def _strip(axes: Axes) -> None:
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _svg(figure: Figure, *, name: str, title: str) -> str:
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    stream = io.StringIO()
    FigureCanvasSVG(figure)
    with warnings.catch_warnings():
        # The browser draws the text, with its fonts, so glyphs missing here do not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    text = re.sub(r' d="[^"]*"', _rounded, text)
    # Several pictures share a page, and ids are unique on a page.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def _rounded(path: re.Match[str]) -> str:
    # A tenth of a point is less than a pixel; a thousand targets would be megabytes otherwise.
    return re.sub(r"(\d+\.\d)\d+", r"\1", path[0])
