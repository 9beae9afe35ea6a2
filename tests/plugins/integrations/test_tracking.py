"""Curves in the files of TensorBoard and the runs of MLflow."""

import json
from pathlib import Path

import pytest
import torch

import tersely
from tersely.jobs.runner import run_job
from tersely_integrations.mlflow import writer as mlflow_writer
from tersely_integrations.tensorboard import TensorBoard
from tersely_integrations.tensorboard import writer as tensorboard_writer

LOSSES = [0.5, 0.25, 0.125]


def train(observer, losses, *, session=None):
    """A session that notes a loss after each of its steps."""
    if session is None:
        torch.manual_seed(0)
        config = [{"op_names": ["0"], "sparse_ratio": 0.5}]
        model = torch.nn.Sequential(torch.nn.Linear(4, 2, bias=False))
        session = tersely.attach(model, {"pruning": {"algorithm": "level", "config_list": config}})
    session.add_observer(observer)
    if not session.is_compressed:
        session.compress()
    for loss in losses:
        session.step()
        session.note({"loss": loss}, epoch=1)
    return session


def scalars(folder: Path, name: str):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return [(event.step, event.value) for event in found.Scalars(name)]


def test_tensorboard_reads_every_number_at_its_step(tmp_path):
    observer = TensorBoard(tmp_path)

    train(observer, LOSSES)
    observer.close()

    assert scalars(tmp_path, "loss") == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert scalars(tmp_path, "sparsity/0.weight") == [(0, 0.5)]
    assert scalars(tmp_path, "epoch") == [(1, 1.0), (2, 1.0), (3, 1.0)]


def test_tensorboard_shows_one_curve_of_a_training_that_was_killed_and_resumed(tmp_path):
    killed = TensorBoard(tmp_path / "curves")
    session = train(killed, LOSSES[:1])
    session.save(tmp_path / "saved")
    train(killed, [9.0], session=session)  # a step that the saved session does not know
    killed.close()
    session.detach()

    resumed = TensorBoard(tmp_path / "curves", resumed_at=1)
    loaded = tersely.load_session(session.model, tmp_path / "saved")
    train(resumed, LOSSES[1:], session=loaded)
    resumed.close()

    assert scalars(tmp_path / "curves", "loss") == [(1, 0.5), (2, 0.25), (3, 0.125)]


def test_a_second_run_takes_the_place_of_the_first_in_tensorboard(tmp_path):
    for losses in ([9.0, 9.0, 9.0, 9.0], LOSSES):
        observer = TensorBoard(tmp_path)
        train(observer, losses)
        observer.close()

    assert scalars(tmp_path, "loss") == [(1, 0.5), (2, 0.25), (3, 0.125)]


def test_the_curves_of_a_job_lie_beside_its_output(tmp_path):
    default = tensorboard_writer(output=tmp_path / "runs" / "first", resumed_at=None)
    named = tensorboard_writer(output=tmp_path / "runs" / "first", resumed_at=None, folder="curves")

    for observer in (default, named):
        train(observer, LOSSES)
        observer.close()

    assert scalars(tmp_path / "runs" / "first.curves", "loss")[0] == (1, 0.5)
    assert scalars(tmp_path / "runs" / "curves", "loss")[0] == (1, 0.5)


@pytest.fixture
def tracking(tmp_path, monkeypatch):
    """A store of runs in a folder, and a function that returns all runs of it."""
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database needs more than the client
    uri = (tmp_path / "store").as_uri()
    client = MlflowClient(tracking_uri=uri)

    def found(experiment="tersely"):
        place = client.get_experiment_by_name(experiment).experiment_id
        return client.search_runs([place])

    def history(run, name):
        logged = client.get_metric_history(run.info.run_id, name)
        return [(metric.step, metric.value) for metric in logged]

    return uri, found, history


def test_mlflow_has_every_number_at_its_step_in_a_run_named_after_the_output(tmp_path, tracking):
    uri, found, history = tracking
    observer = mlflow_writer(output=tmp_path / "first", resumed_at=None, tracking_uri=uri)

    train(observer, LOSSES)
    observer.close()

    (run,) = found()
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert history(run, "loss") == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert history(run, "sparsity/0.weight") == [(0, 0.5)]


def test_a_resumed_job_goes_on_with_its_run_of_mlflow_and_repeats_no_step(tmp_path, tracking):
    uri, found, history = tracking
    given = {"output": tmp_path / "it's first", "tracking_uri": uri, "experiment": "digits"}
    killed = mlflow_writer(resumed_at=None, **given)
    session = train(killed, LOSSES[:1])
    session.save(tmp_path / "saved")
    train(killed, LOSSES[1:2], session=session)
    killed.close(failed=True)
    assert found("digits")[0].info.status == "FAILED"
    session.detach()

    resumed = mlflow_writer(resumed_at=1, **given)
    train(resumed, LOSSES[1:], session=tersely.load_session(session.model, tmp_path / "saved"))
    resumed.close()

    (run,) = found("digits")
    assert run.info.status == "FINISHED"
    assert history(run, "loss") == [(1, 0.5), (2, 0.25), (3, 0.125)]


def test_a_new_job_has_a_run_of_its_own_in_mlflow(tmp_path, tracking):
    uri, found, _ = tracking
    for _ in range(2):
        observer = mlflow_writer(
            output=tmp_path / "first", resumed_at=None, name="mine", tracking_uri=uri
        )
        observer.close()

    assert [run.info.run_name for run in found()] == ["mine", "mine"]


def test_more_numbers_than_a_server_takes_at_once_are_all_logged(tmp_path, tracking):
    uri, found, history = tracking
    observer = mlflow_writer(output=tmp_path / "first", resumed_at=None, tracking_uri=uri)
    values = {f"range_low/{index}.weight": float(index) for index in range(1500)}

    observer.observe(tersely.Observation(step=2, event="note", values=values))

    (run,) = found()
    assert len(run.data.metrics) == 1500
    assert history(run, "range_low/1499.weight") == [(2, 1499.0)]


def test_a_job_names_its_writers(tmp_path, tracking):
    uri, found, history = tracking
    (tmp_path / "curved_parts.py").write_text(
        "import torch\n\n"
        "def build():\n    return torch.nn.Sequential(torch.nn.Linear(4, 2))\n\n"
        "def epoch():\n    return [(torch.ones(2, 4), torch.ones(2, 2))]\n"
    )
    job = {
        "model": "curved_parts:build",
        "data": {"train": "curved_parts:epoch"},
        "loop": {"epochs": 2, "lr": 0.1, "loss": "mse"},
        "recipe": {
            "pruning": {
                "algorithm": "level",
                "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5}],
            }
        },
        "output": "runs/first",
        "observers": [
            {"create": "tersely_integrations.tensorboard:writer"},
            {"create": "tersely_integrations.mlflow:writer", "args": {"tracking_uri": uri}},
        ],
    }
    (tmp_path / "job.json").write_text(json.dumps(job))

    run_job(tmp_path / "job.json")

    curve = scalars(tmp_path / "runs" / "first.curves", "loss")
    assert [step for step, _ in curve] == [1, 2]
    (run,) = found()
    assert history(run, "loss") == [(step, pytest.approx(value)) for step, value in curve]
    params = run.data.params
    assert params["loop.lr"] == "0.1"
    assert params["recipe.pruning.algorithm"] == "level"
    assert params["recipe.pruning.config_list.0.op_types"] == '["Linear"]'
    assert params["recipe.pruning.config_list.0.sparse_ratio"] == "0.5"
    assert texts(tmp_path / "runs" / "first.curves", "job").count('"algorithm": "level"') == 1
    written = tmp_path / "runs" / "first"
    assert artifacts(run) == {
        name: (written / name).read_text() for name in ("report.html", "report.json")
    }


def texts(folder: Path, name: str) -> str:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    (event,) = found.Tensors(f"{name}/text_summary")
    return event.tensor_proto.string_val[0].decode()


def artifacts(run):
    from urllib.parse import urlparse
    from urllib.request import url2pathname

    place = Path(url2pathname(urlparse(run.info.artifact_uri).path))
    return {
        one.relative_to(place).as_posix(): one.read_text()
        for one in place.rglob("*")
        if one.is_file()
    }


def test_files_of_the_output_are_logged_when_a_run_ends_well_and_only_then(tmp_path, tracking):
    uri, found, _ = tracking
    output = tmp_path / "first"
    (output / "exports").mkdir(parents=True)
    (output / "exports" / "model.onnx").write_text("1")
    (output / "report.html").write_text("2")
    given = {"output": output, "resumed_at": None, "tracking_uri": uri}
    given["files"] = ["exports", "report.html"]

    mlflow_writer(name="bad", **given).close(failed=True)
    mlflow_writer(name="good", **given).close()

    logged = {run.info.run_name: artifacts(run) for run in found()}
    assert logged == {"bad": {}, "good": {"exports/model.onnx": "1", "report.html": "2"}}


def test_a_run_ends_though_its_files_cannot_be_logged(tmp_path, tracking):
    uri, found, _ = tracking
    given = {"resumed_at": None, "tracking_uri": uri, "files": ["report.html"]}
    observer = mlflow_writer(output=tmp_path / "first", **given)

    with pytest.raises(OSError, match=r"report\.html"):
        observer.close()

    assert [run.info.status for run in found()] == ["FINISHED"]


def test_parameters_of_any_document_are_taken_by_a_server(tmp_path, tracking):
    uri, found, _ = tracking
    job = {
        "model_args": {f"size {n}/[x]": n for n in range(150)},
        "recipe": {"deep" * 80: None, "note": "long" * 2000},
        "empty": {},
    }

    mlflow_writer(output=tmp_path / "first", resumed_at=None, job=job, tracking_uri=uri)

    (run,) = found()
    assert len(run.data.params) == 153
    assert run.data.params["model_args.size 149__x_"] == "149"
    assert len(run.data.params["recipe.note"]) == 6000
    assert run.data.params["empty"] == "{}"
