"""A report as one HTML page that needs no network, in light and dark."""

from __future__ import annotations

from importlib import resources

from tersely.extras import extra
from tersely.reporting.data import ReportData
from tersely.reporting.quantized_size import spell_count
from tersely.reporting.table import (
    percent,
    share_of_dense,
    sizes,
    spell_changes,
    spell_scales,
    tabulate_metrics,
)

with extra("report", purpose="a report's page"):
    import jinja2
    from markupsafe import Markup

_HEADINGS = {
    "progress": "Still under way",
    "unmatched": "Matched nothing",
    "shadowed": "Configured twice",
    "skipped": "Skipped",
    "hint": "Hints",
    "factors": "Factors of inputs",
}


def render_page(report: ReportData, *, title: str) -> str:
    """Return the page.

    Args:
        report: what to show.
        title: the page's heading.
    """
    from tersely.reporting import (
        plots as report_plots,  # matplotlib loads slowly; only pages need it
    )

    masked = [row for row in report.rows if row.sparsity is not None]
    wide = report_plots.is_wide(masked)
    metrics = tabulate_metrics(report.metrics)
    environment = page_environment()
    environment.filters.update(
        percent=percent,
        sizes=sizes,
        spell_changes=spell_changes,
        spell_scales=spell_scales,
        spell_count=spell_count,
        share_of_dense=share_of_dense,
    )
    return environment.get_template("report.html.jinja").render(
        report=report,
        title=title,
        metrics=metrics,
        moments=list(dict.fromkeys(moment for values in metrics.values() for moment in values)),
        remarks=_grouped_remarks(report),
        sparsity_plot=Markup(report_plots.plot_sparsity(masked)) if masked else "",
        metrics_plot=Markup(report_plots.plot_metrics(metrics)) if metrics else "",
        history_plot=(
            Markup(report_plots.plot_history(report.history, wide=not wide))
            if masked and len(report.history) > 1
            else ""
        ),
        wide=wide,
    )


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
    return resources.files("tersely.reporting").joinpath(name).read_text("utf-8")


def _breakable(name: str) -> Markup:
    # A browser breaks a long dotted name anywhere unless it knows where it may.
    return Markup(".<wbr>").join(name.split("."))


def _grouped_remarks(report: ReportData) -> dict[str, list[str]]:
    groups = {
        heading: [remark.text for remark in report.remarks if remark.kind == kind]
        for kind, heading in _HEADINGS.items()
    }
    return {heading: texts for heading, texts in groups.items() if texts}
