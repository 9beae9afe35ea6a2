"""A report as one HTML page that needs no network, in light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from importlib import resources

import yaml

from tersely.contracts.frozen_json import thawed
from tersely.extras import extra
from tersely.reporting.data import ReportData
from tersely.reporting.page.headlines import headlines
from tersely.reporting.page.page_rows import all_rows, histogram_path, page_groups
from tersely.reporting.printing.folded_names import fold_names
from tersely.reporting.printing.table import (
    measured_tables,
    percent,
    spell_changes,
    tabulate_metrics,
)

with extra("report", purpose="a report's page"):
    import jinja2
    from markupsafe import Markup

_UNDONE = {
    "progress": "Still under way",
    "unmatched": "Matched nothing",
    "skipped": "Skipped",
}
_REMARKS = {
    "shadowed": "Configured twice",
    "hint": "Hints",
    "factors": "Factors of inputs",
}


def render_page(report: ReportData, *, title: str) -> str:
    """Return the page.

    Args:
        report: what to show.
        title: the page's heading.
    """
    # matplotlib loads slowly; only pages need it
    from tersely.reporting.page.plots import plot_history, plot_metrics, plot_sparsity

    masked = [row for row in report.rows if row.sparsity is not None]
    # What was shrunk has nothing masked left, and a picture of it would be empty.
    is_drawn = any(row.sparsity or row.requested for row in masked) and not _is_all_gone(report)
    metrics = tabulate_metrics(report.metrics)
    groups = page_groups(report)
    environment = page_environment()
    environment.filters.update(
        percent=percent,
        spell_changes=spell_changes,
        histogram=histogram_path,
        bits=_bits,
        decibels=_decibels,
    )
    environment.globals.update(percent=percent, bits=_bits, decibels=_decibels)
    return environment.get_template("report.html.jinja").render(
        report=report,
        title=title,
        headlines=tuple(headlines(report)),
        measured=tuple(measured_tables(report)),
        groups=groups,
        has_bits=any(row.bits is not None for row in all_rows(groups)),
        has_sparsity=any((row.sparsity, row.removed) != (None, None) for row in all_rows(groups)),
        has_layers=bool(report.layers),
        undone=_undone(report),
        remarks=_grouped(report, _REMARKS),
        recipe=_recipe(report),
        script=Markup(_read("page.js")),
        sparsity_plot=_pair(lambda tight: plot_sparsity(masked, tight=tight)) if is_drawn else (),
        metrics_plot=Markup(plot_metrics(metrics)) if metrics else "",
        history_plot=(
            _pair(lambda tight: plot_history(report.history, tight=tight))
            if is_drawn and len(report.history) > 1
            else ()
        ),
    )


def _pair(draw: Callable[[bool], str]) -> tuple[Markup, Markup]:
    """Return a picture for wide pages and one for narrow ones."""
    return Markup(draw(False)), Markup(draw(True))


def _is_all_gone(report: ReportData) -> bool:
    return bool(report.shrinks) and not report.masked


def _bits(value: float) -> str:
    return f"{value:.2f}"


def _decibels(value: float) -> str:
    return "exact" if math.isinf(value) else f"{value:.1f} dB"


def _recipe(report: ReportData) -> str:
    if not report.recipe:
        return ""
    text: str = yaml.safe_dump(
        thawed(report.recipe), sort_keys=False, allow_unicode=True, default_flow_style=None
    )
    return text


def _undone(report: ReportData) -> dict[str, list[str]]:
    """Return what was asked for and not done, under headings."""
    stays = [str(one) for shrunk in report.shrinks for one in shrunk.stays]
    lost: dict[str, list[str]] = {}
    for layer in report.layers:
        if layer.why:
            lost.setdefault(layer.why, []).append(layer.module)
    compared = [f"{', '.join(fold_names(names))}: {why}" for why, names in lost.items()]
    found = {
        "Masked, but not removed": stays,
        **_grouped(report, _UNDONE),
        "Not compared with the dense layer": compared,
    }
    return {heading: texts for heading, texts in found.items() if texts}


def page_environment() -> jinja2.Environment:
    """Return where pages are rendered: their templates, their style sheet, and names that break."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_read),
    )
    environment.filters["breakable"] = _breakable
    environment.globals["style"] = Markup(_read("page.css"))
    return environment


def _read(name: str) -> str:
    return resources.files("tersely.reporting.page").joinpath(name).read_text("utf-8")


def _breakable(name: str) -> Markup:
    # A browser breaks a long dotted name anywhere unless it knows where it may.
    return Markup(".<wbr>").join(name.split("."))


def _grouped(report: ReportData, headings: Mapping[str, str]) -> dict[str, list[str]]:
    groups = {
        heading: [remark.text for remark in report.remarks if remark.kind == kind]
        for kind, heading in headings.items()
    }
    return {heading: texts for heading, texts in groups.items() if texts}
