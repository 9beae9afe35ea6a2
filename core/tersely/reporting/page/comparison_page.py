"""Runs side by side as one HTML page that needs no network."""

from __future__ import annotations

from tersely.extras import extra
from tersely.reporting.comparing.comparison import Comparison, pareto
from tersely.reporting.page.page import page_environment

with extra("report", purpose="a page of runs compared"):
    from markupsafe import Markup

_LEAST = 3  # two points make no frontier


def render_comparison(comparison: Comparison) -> str:
    """Return the page: measurements, a Pareto picture of three runs or more, jobs, targets.

    Args:
        comparison: what to show.
    """
    from tersely.reporting.page.plots import (
        plot_pareto,  # matplotlib loads slowly; only pages need it
    )

    quality, cost = comparison.quality, comparison.cost
    plots: list[Markup] = []
    if len(comparison.runs) >= _LEAST and quality is not None and cost is not None:
        for tight in (False, True):
            plot = plot_pareto(
                comparison.names,
                costs=[value or 0.0 for value in cost.values],
                qualities=[value or 0.0 for value in quality.values],
                best=pareto(quality, cost),
                labels=(cost.name, quality.name),
                tight=tight,
            )
            plots.append(Markup(plot))
    template = page_environment().get_template("comparison.html.jinja")
    return template.render(
        comparison=comparison,
        title="Runs compared",
        tables=list(comparison.tables()),
        plots=plots,
    )
