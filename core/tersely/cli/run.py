"""``tersely run``: a whole job, from its file to its report."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("run")
@click.argument("job", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), help="Write here, not where the job says."
)
@click.option("--resume", is_flag=True, help="Resume an interrupted run of this job.")
def command(job: Path, *, output: Path | None, resume: bool) -> None:
    """Run JOB: build, plan, compress, train, evaluate, and write the report and the model."""
    from tersely.jobs.runner import run_job  # imports torch, which other commands do without

    run_job(job, resume=resume, output=output)
