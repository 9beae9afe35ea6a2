"""``tersely run``: a whole job, from its file to its report."""

from __future__ import annotations

from pathlib import Path

import click

from tersely.cli.console import make_console
from tersely.cli.options.logging import log_option
from tersely.cli.options.plugin_files import job_plugin_options
from tersely.document.reading.source import read_document


@click.command("run")
@click.argument("job", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), help="Write here instead of the job's output."
)
@click.option(
    "--plan",
    type=click.Path(path_type=Path),
    help="Run exactly this plan, from `tersely plan --out`; fail if the plan now differs.",
)
@click.option("--resume", is_flag=True, help="Resume an interrupted run of this job.")
@click.option("--quiet", is_flag=True, help="Print only errors.")
@log_option
@job_plugin_options("job")
def command(
    job: Path, *, output: Path | None, plan: Path | None, resume: bool, quiet: bool
) -> None:
    """Run JOB: build, plan, compress, train, evaluate, and write the report and the model."""
    # Here, because both import torch and other commands do without.
    from tersely.jobs.runner import run_job
    from tersely.planning.plan import Plan

    reviewed = None if plan is None else Plan.from_dict(read_document(plan).data)
    run_job(job, resume=resume, output=output, plan=reviewed, console=make_console(quiet=quiet))
