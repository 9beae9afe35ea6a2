"""MLflow: the curves of a session as the metrics of a run on a tracking server."""

from __future__ import annotations

import time
from pathlib import Path

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

import tersely

OUTPUT_TAG = "tersely.output"
"""The tag by which a resumed job finds its run again."""

_BATCH = 1000  # what a tracking server takes in one call


class MLflow:
    """Logs what a session tells its observers as metrics of one run.

    Give it to `tersely.Session.add_observer`, and close it at the end.
    """

    def __init__(self, run_id: str, *, tracking_uri: str | None = None) -> None:
        """Log into a run that exists.

        A number of a step that the run has already is not logged again, so that a resumed training
        leaves one curve.

        Args:
            run_id: the run's id.
            tracking_uri: where runs are kept; MLflow's own setting by default.
        """
        self._client = MlflowClient(tracking_uri=tracking_uri)
        self._run_id = run_id
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
        """End the run.

        Args:
            failed: whether it is marked as failed.
        """
        self._client.set_terminated(self._run_id, status="FAILED" if failed else "FINISHED")

    def _last_step(self, name: str) -> int:
        if name not in self._last:
            logged = self._client.get_metric_history(self._run_id, name)
            self._last[name] = max((metric.step for metric in logged), default=-1)
        return self._last[name]


def writer(
    *,
    output: Path,
    resumed_at: int | None,
    experiment: str = "tersely",
    name: str | None = None,
    tracking_uri: str | None = None,
) -> MLflow:
    """Return the writer of a job: ``create: tersely_integrations.mlflow:writer``.

    Args:
        output: the job's output folder.
        resumed_at: the step from which an interrupted run goes on, or None for a new run. The run
            of MLflow that has the output folder in its tag is then continued.
        experiment: the experiment's name; created if there is none.
        name: the run's name; the output folder's by default.
        tracking_uri: where runs are kept; MLflow's own setting by default.
    """
    client = MlflowClient(tracking_uri=tracking_uri)
    found = client.get_experiment_by_name(experiment)
    place = client.create_experiment(experiment) if found is None else found.experiment_id
    if resumed_at is not None:
        run_id = _latest(client, place, str(output))
        if run_id is not None:
            client.update_run(run_id, status="RUNNING")
            return MLflow(run_id, tracking_uri=tracking_uri)
    tags = {OUTPUT_TAG: str(output)}
    made = client.create_run(place, tags=tags, run_name=name or output.name)
    return MLflow(made.info.run_id, tracking_uri=tracking_uri)


def _latest(client: MlflowClient, experiment_id: str, output: str) -> str | None:
    # Compared here: a filter of MLflow's has no way to write a quote inside of quotes.
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
