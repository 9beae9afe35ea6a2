"""MLflow: the curves of a session as the metrics of a run on a tracking server."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

import tersely

OUTPUT_TAG = "tersely.output"
"""The tag by which a resumed job finds its run."""

FILES = ("report.html", "report.json")
"""The files of a job's output that are logged as artifacts by default."""

_BATCH = 1000  # metrics that a tracking server accepts in one call
_PARAMS = 100  # parameters
_KEY, _LENGTH = 250, 6000  # characters of the name and of the value of a parameter


class MLflow:
    """Logs the numbers that a session reports to its observers as metrics of a run.

    Give it to `tersely.Session.add_observer`, and close it at the end.
    """

    def __init__(
        self,
        run_id: str,
        *,
        tracking_uri: str | None = None,
        output: Path | None = None,
        files: Sequence[str] | None = None,
    ) -> None:
        """Log into an existing run.

        Numbers of a step that the run already has are not logged again, so that a resumed training
        has one curve.

        Args:
            run_id: the run's id.
            tracking_uri: where runs are stored; MLflow's own setting by default.
            output: a job's output, whose files are logged as artifacts when the run succeeds.
            files: the files and folders of it to log; by default the report, if there is one.
        """
        self._client = MlflowClient(tracking_uri=tracking_uri)
        self._run_id = run_id
        self._output = output
        self._files = files
        self._last: dict[str, int] = {}

    def observe(self, observation: tersely.Observation) -> None:
        """Log the numbers of a step.

        Args:
            observation: the numbers.
        """
        now = int(time.time() * 1000)
        step = observation.step
        values = dict(observation.values)
        if observation.epoch is not None:
            values["epoch"] = float(observation.epoch)
        new = [
            Metric(name, float(value), now, step)
            for name, value in values.items()
            if step > self._last_step(name)
        ]
        for begin in range(0, len(new), _BATCH):
            self._client.log_batch(self._run_id, metrics=new[begin : begin + _BATCH])
        self._last.update((metric.key, step) for metric in new)

    def close(self, *, failed: bool = False) -> None:
        """Log the files, and end the run.

        Args:
            failed: whether to mark it as failed, in which case no file is logged.
        """
        try:
            if self._output is not None and not failed:
                self._log_files(self._output)
        finally:
            self._client.set_terminated(self._run_id, status="FAILED" if failed else "FINISHED")

    def _log_files(self, output: Path) -> None:
        wanted = [output / name for name in (FILES if self._files is None else self._files)]
        for file in wanted:
            if file.is_dir():
                self._client.log_artifacts(self._run_id, str(file), artifact_path=file.name)
            elif file.exists() or self._files is not None:
                self._client.log_artifact(self._run_id, str(file))

    def _last_step(self, name: str) -> int:
        if name not in self._last:
            logged = self._client.get_metric_history(self._run_id, name)
            self._last[name] = max((metric.step for metric in logged), default=-1)
        return self._last[name]


def writer(
    *,
    output: Path,
    resumed_at: int | None,
    job: Mapping[str, object] | None = None,
    experiment: str = "tersely",
    name: str | None = None,
    tracking_uri: str | None = None,
    files: Sequence[str] | None = None,
) -> MLflow:
    """Return the writer of a job: ``create: tersely_integrations.mlflow:writer``.

    Args:
        output: the job's output folder.
        resumed_at: the step from which an interrupted run continues, or None for a new run. The
            MLflow run with the output folder in its tag is then continued.
        job: the job's document, whose values are logged as parameters.
        experiment: the experiment's name; created if there is none.
        name: the run's name; the output folder's by default.
        tracking_uri: where runs are stored; MLflow's own setting by default.
        files: files and folders of the output that are logged as artifacts at the end; the report
            by default.
    """
    client = MlflowClient(tracking_uri=tracking_uri)
    found = client.get_experiment_by_name(experiment)
    place = client.create_experiment(experiment) if found is None else found.experiment_id
    if resumed_at is not None:
        run_id = _latest(client, place, str(output))
        if run_id is not None:
            client.update_run(run_id, status="RUNNING")
            return MLflow(run_id, tracking_uri=tracking_uri, files=files, output=output)
    tags = {OUTPUT_TAG: str(output)}
    made = client.create_run(place, tags=tags, run_name=name or output.name)
    params = [Param(key, value) for key, value in _params(job)] if job else []
    for begin in range(0, len(params), _PARAMS):
        client.log_batch(made.info.run_id, params=params[begin : begin + _PARAMS])
    return MLflow(made.info.run_id, tracking_uri=tracking_uri, files=files, output=output)


def _params(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values of a document, each with its keys joined by dots."""
    if isinstance(value, Mapping) and value:
        parts = [(str(name), inner) for name, inner in value.items()]
    elif isinstance(value, Sequence) and any(isinstance(one, Mapping) for one in value):
        parts = [(str(place), inner) for place, inner in enumerate(value)]
    else:
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        yield key[-_KEY:], text[:_LENGTH]
        return
    for name, inner in parts:
        plain = re.sub(r"[^\w\-. ]", "_", name, flags=re.ASCII)  # MLflow accepts no others
        yield from _params(inner, f"{key}.{plain}" if key else plain)


def _latest(client: MlflowClient, experiment_id: str, output: str) -> str | None:
    # Compared here, since MLflow's filters cannot escape quotes.
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment_id], order_by=["attributes.start_time DESC"], page_token=token
        )
        for run in page:
            if run.data.tags.get(OUTPUT_TAG) == output:
                found: str = run.info.run_id
                return found
        token = page.token
        if not token:
            return None
