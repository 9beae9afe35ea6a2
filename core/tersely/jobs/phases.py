"""The phases of a job: each takes the run so far and returns it one step further."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs
from torch import nn

from tersely.document.job import Job
from tersely.errors import ConfigError, Problem, SessionError
from tersely.jobs.calibrating import calibration_batches
from tersely.jobs.generators import seed_generators
from tersely.jobs.measuring.bytes_on_disk import look_at_files, size_on_disk
from tersely.jobs.output.checkpoint import load_checkpoint, own_tensors, save_checkpoint
from tersely.jobs.output.record import RunRecord
from tersely.jobs.run import Run, checkpoint_folder, keep_checkpoint
from tersely.jobs.shrinking import example_of, shrink_what_ended
from tersely.jobs.training.epochs import epoch_folder
from tersely.jobs.training.loop import train_epochs
from tersely.planning.comparing import check_unchanged
from tersely.planning.resolve import PlanWarning, plan
from tersely.reporting.printing.plan_summary import summarize_plan
from tersely.reporting.printing.table import split_metric
from tersely.session.attaching import attach
from tersely.session.loading import give_batches, needs_batches
from tersely.storage.weights import WEIGHTS, write_weights

LASTING = ("compress", "train")
"""Phases that keep a checkpoint, from which a later run resumes."""


def build_model(run: Run) -> Run:
    """Call the user's builders."""
    seed_generators(run.job.seed)
    model = run.calls.model(**run.job.model_args)
    teacher = run.calls.teacher(**run.job.teacher_args) if run.calls.teacher else None
    for path, built in (("model", model), ("teacher", teacher)):
        if not isinstance(built, nn.Module) and not (path == "teacher" and built is None):
            found = f"returned {_kind(built)}, expected a torch.nn.Module"
            raise ConfigError([Problem(path, found)], source=run.job.source)
    count = sum(parameter.numel() for parameter in model.parameters())
    run.display.line(f"  {type(model).__name__}, {count:,} parameters")
    return attrs.evolve(
        run,
        built=model,
        teacher=teacher,
        weights=tuple(own_tensors(model)),
        dense_bytes=size_on_disk(model),
    )


def measure(moment: str) -> Callable[[Run], Run]:
    """Return the phase that evaluates the model and remembers the result.

    Args:
        moment: ``before``, ``trained``, ``compressed`` or ``after``.
    """

    def act(run: Run) -> Run:
        if run.calls.evaluate is None:
            return run
        values = _metrics(run.calls.evaluate(run.model), moment, source=run.job.source)
        for name, value in values.items():
            run.display.line(f"  {split_metric(name)[1]} {value:.6g}")
        record = attrs.evolve(run.record, metrics={**run.record.metrics, **values})
        if run.session is not None:
            run.session.metrics.update(values)
            run.session.note(values)
        return attrs.evolve(run, record=record)

    return act


def resolve_plan(run: Run) -> Run:
    """Plan, refuse another plan than the reviewed one, and print what the plan does."""
    example = example_of(run)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PlanWarning)
        resolved = plan(run.model, run.job.recipe, teacher=run.teacher, example_inputs=example)
    if run.reviewed is not None:
        check_unchanged(run.reviewed, resolved)
    run.display.line(summarize_plan(resolved, run.model))
    return attrs.evolve(run, resolved=resolved, example=example)


def attach_plan(run: Run) -> Run:
    """Put the plan on the model."""
    session = attach(
        run.model,
        run.resolved or run.job.recipe,
        teacher=run.teacher,
        example_inputs=run.example,
    )
    session.metrics.update(run.record.metrics)
    run.observers.watch(session)
    if run.record.metrics:
        session.note(run.record.metrics)
    return attrs.evolve(run, session=session)


def newest_checkpoint(folder: Path, record: RunRecord) -> Path | None:
    """Return the checkpoint from which a run resumes, or None for one that has none.

    Args:
        folder: the run's folder.
        record: how far the run is.
    """
    if record.epochs is not None:
        return epoch_folder(folder, record.epochs)
    lasting = [name for name in record.done if name in LASTING]
    return checkpoint_folder(folder, lasting[-1]) if lasting else None


def restore(run: Run) -> Run:
    """Load the newest checkpoint, and the batches that the session needs again."""
    newest = newest_checkpoint(run.folder, run.record)
    if newest is None:
        raise RuntimeError("a run without a checkpoint cannot be restored")
    session = load_checkpoint(newest, run.model, teacher=run.teacher, example_inputs=run.example)
    session.metrics.update(run.record.metrics)
    if run.calls.calibration is not None and needs_batches(session):
        seed_generators(run.job.seed)
        give_batches(
            session, calibration_batches(run.job, run.calls.calibration), mask=run.job.data.mask
        )
    run.observers.watch(session, resumed_at=session.steps)
    return attrs.evolve(run, session=session)


def calibrate(run: Run) -> Run:
    """Let the algorithms observe the user's batches."""
    if run.calls.calibration is not None:
        seed_generators(run.job.seed)
        shown = run.display.track(
            calibration_batches(run.job, run.calls.calibration), title="batches observed"
        )
        run.attached.calibrate(shown, mask=run.job.data.mask)
    return run


def compress(run: Run) -> Run:
    """Compute masks and scales, put them in force, and keep a checkpoint."""
    if run.attached.is_compressed:
        run.display.line("  the training loop has done it")
    else:
        _compress(run)
    shrink_what_ended(run)
    keep_checkpoint(run, "compress")
    return run


def measure_uncompressed(moment: str) -> Callable[[Run], Run]:
    """Return the phase that evaluates the model if it is not compressed yet.

    Args:
        moment: ``trained``.
    """
    act = measure(moment)
    return lambda run: run if run.attached.is_compressed else act(run)


def _compress(run: Run) -> None:
    try:
        with run.display.working():
            run.attached.compress()
    except SessionError as error:
        if run.calls.calibration is not None or "session.calibrate(" not in str(error):
            raise
        raise SessionError(
            f"{error}; the job calls it when data.calibration gives the batches",
            target=error.target,
            path=error.path,
            algorithm=error.algorithm,
        ) from error


def train(run: Run) -> Run:
    """Run the built-in loop, or the user's, and keep a checkpoint."""
    if run.job.loop is not None:
        run = train_epochs(run, run.job.loop)
        keep_checkpoint(run, "train")
        # From now on the phase's own checkpoint is the newest.
        run = attrs.evolve(run, record=attrs.evolve(run.record, epochs=None))
    elif run.calls.train is not None:
        seed_generators(run.job.seed)
        session = run.attached
        with run.display.count(lambda: session.steps, title="steps trained"):
            run.calls.train(run.model, session)
        keep_checkpoint(run, "train")
    return run


def save(run: Run) -> Run:
    """Save the session with the raw weights, and write the report's data down."""
    save_checkpoint(run.folder / "session", run.model, run.attached, names=run.weights)
    return attrs.evolve(run, report=run.attached.report())


def finalize(run: Run) -> Run:
    """Bake the result into plain modules and write their weights."""
    model = run.attached.finalize()
    write_weights(run.folder / WEIGHTS, own_tensors(model))
    return attrs.evolve(run, built=model)


def write_report(run: Run) -> Run:
    """Write the report as JSON and HTML, with the sizes of what was written."""
    run = look_at_files(run)
    if run.report is not None:
        run.report.to_json(run.folder / "report.json")
        run.report.to_html(run.folder / "report.html", title=f"{job_name(run.job)}, compressed")
    return run


def job_name(job: Job) -> str:
    """Return what to call a job: its file's name, or its folder's for a plain ``job.yaml``."""
    stem = Path(job.source).stem if job.source else "job"
    return job.directory.name.capitalize() if stem == "job" else stem


def _metrics(value: object, moment: str, *, source: str | None) -> dict[str, float]:
    named = value if isinstance(value, Mapping) else {"": value}
    metrics = {}
    for name, number in named.items():
        try:
            result = float(number)  # type: ignore[arg-type]  # anything else is caught
        except (TypeError, ValueError, RuntimeError) as error:
            found = f"returned {_kind(number)}{f' for {name!r}' if name else ''}"
            problem = Problem(
                "data.evaluate", f"{found}, expected a number or a mapping of names to numbers"
            )
            raise ConfigError([problem], source=source) from error
        metrics[f"{moment}.{name}" if name else moment] = result
    return metrics


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
