"""Whole jobs: what they write, what they check first, and how an interrupted one goes on."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from messages.documents import KEY_IN_QUOTES
from messages.files import (
    AMONG_PACKAGES,
    CHANGED_AFTER,
    INCOMPLETE_JSON,
    MAPPING_OF_NAMES,
    NOTHING_TO,
    OTHER_JOB,
    unfit_checkpoint,
    without_resume,
)
from safetensors.torch import load_file

import tersely
from tersely.errors import (
    ConfigError,
    ExportError,
    MissingExtraError,
    PlanError,
    SessionFileError,
)
from tersely.jobs.output import folders
from tersely.reporting.report import read_report
from tersely.storage.tensor_file import tensors_in, written_size

Run = Callable[..., str]


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).parts[0] for path in folder.rglob("*") if path.is_file()}


def finished_weights(folder: Path) -> dict[str, list[Any]]:
    return {name: value.tolist() for name, value in load_file(folder / "model.safetensors").items()}


def test_a_job_leaves_its_report_its_model_and_its_session(workshop: Any, run: Run) -> None:
    run()

    assert files(workshop.output) == {
        "model.safetensors", "report.html", "report.json", "run.json", "session",
    }  # fmt: skip
    assert not workshop.partial.exists()


def test_the_phases_come_in_order(workshop: Any, run: Run) -> None:
    said = run()

    assert workshop.diary() == ["build", "evaluate", "evaluate", "train", "evaluate"]
    assert [line for line in said.splitlines() if line.startswith("[")] == [
        "[1/11] build the model",
        "[2/11] evaluate the dense model",
        "[3/11] plan",
        "[4/11] attach",
        "[5/11] compress",
        "[6/11] evaluate the compressed model",
        "[7/11] train",
        "[8/11] evaluate the result",
        "[9/11] save the session",
        "[10/11] finalize",
        "[11/11] write the report",
    ]


def test_a_library_that_the_page_needs_is_looked_for_first(
    workshop: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(MissingExtraError, match=r'pip install "tersely\[report\]"'):
        run()

    assert workshop.diary() == []
    assert not workshop.partial.exists()


def test_the_plan_is_printed_before_and_the_report_after(workshop: Any, run: Run) -> None:
    said = run()

    assert said.index("untouched: nothing") < said.index("[4/11] attach")
    assert said.index("all pruned weights") > said.index("[11/11] write the report")
    assert said.endswith(f"report: {workshop.output / 'report.html'}\n")


def test_a_log_file_gets_plain_lines(run: Run) -> None:
    said = run()

    assert "\x1b" not in said
    assert "\r" not in said


def test_the_finished_model_is_sparse_and_has_the_names_of_the_user(
    workshop: Any, run: Run
) -> None:
    run()

    weights = load_file(workshop.output / "model.safetensors")

    assert list(weights) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert int((weights["0.weight"] == 0).sum()) == 4


def test_metrics_of_every_moment_are_in_the_report(workshop: Any, run: Run) -> None:
    run()

    report = read_report(workshop.output / "report.json")

    # 0.weight is 1..4 and 5..8, its bias 1, 2; then 1, 2 and bias 1: 11 * 1 + 28 * 2 + 1.
    assert report.metrics["before"] == 68
    # Masked are 1..4 of the first and 1 of the second weight: 28 * 2 + 1.
    assert report.metrics["compressed"] == 57
    assert list(report.metrics) == ["before", "compressed", "after"]


def test_a_mapping_of_metrics_keeps_its_names(workshop: Any, run: Run) -> None:
    workshop.code("toy_scores.py", "def both(model):\n    return {'accuracy': 0.5, 'loss': 2}\n")
    workshop.write(data={"evaluate": "toy_scores:both"}, train=None)

    run()

    metrics = read_report(workshop.output / "report.json").metrics
    assert metrics == {
        "before.accuracy": 0.5, "before.loss": 2.0, "after.accuracy": 0.5, "after.loss": 2.0,
    }  # fmt: skip


def test_the_session_of_a_finished_job_can_be_loaded_again(workshop: Any, run: Run) -> None:
    run()
    model = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    model.load_state_dict(load_file(workshop.output / "session" / "weights.safetensors"))

    session = tersely.load_session(model, workshop.output / "session")

    assert session.steps == 3
    assert session.sparsity()["0"]["weight"] == 0.5


def test_calibration_runs_before_compressing(workshop: Any, run: Run) -> None:
    workshop.write(data={"calibration": "toy_parts:batches"}, train=None)

    said = run()

    # Again when the layers of the dense model are compared with those of the finished one.
    assert workshop.diary() == ["build", "batches", "batches", "build"]
    assert "  2 batches observed\n" in said


def test_a_job_takes_arguments_for_its_model(workshop: Any, run: Run) -> None:
    workshop.write(model_args={"width": 6}, data={}, train=None)

    run()

    assert load_file(workshop.output / "model.safetensors")["0.weight"].shape == (2, 6)


def test_another_output_can_be_named(workshop: Any, run: Run, tmp_path: Path) -> None:
    run(output=tmp_path / "elsewhere")

    assert (tmp_path / "elsewhere" / "report.html").is_file()
    assert not workshop.output.exists()


def test_two_exports_of_one_file_are_refused_before_anything_is_built(
    workshop: Any, run: Run
) -> None:
    workshop.write(export=[{"format": "toy_names"}, {"format": "toy_names", "options": {}}])

    with pytest.raises(
        ConfigError, match=r"export\[1\]: it writes exports/model.txt, as export\[0\] does"
    ):
        run()

    assert workshop.diary() == []


def test_exporters_write_into_exports(workshop: Any, run: Run) -> None:
    workshop.write(export=[{"format": "toy_names"}])

    run()

    names = (workshop.output / "exports" / "model.txt").read_text().split()
    assert names == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_a_report_has_the_bytes_of_every_file_without_a_benchmark(workshop: Any, run: Run) -> None:
    workshop.write(export=[{"format": "toy_names"}])

    run()

    finished = workshop.output / "model.safetensors"
    written = (workshop.output / "exports" / "model.txt").stat().st_size
    report = read_report(workshop.output / "report.json")
    assert report.files == {
        # The same tensors, of which its file would have no digest.
        "dense": written_size(tensors_in(finished.read_bytes())),
        "model.safetensors": finished.stat().st_size,
        "model.txt": written,
    }
    assert not (workshop.output / "dense.safetensors").exists()


def test_a_format_that_cannot_be_written_leaves_the_run_unfinished(workshop: Any, run: Run) -> None:
    workshop.write(export=[{"format": "toy_names", "options": {"fails": "refusals"}}])

    with pytest.raises(ExportError, match="toy_names: 4 targets cannot be exported"):
        run()

    assert not workshop.output.exists()


def test_the_same_seed_gives_the_same_model(workshop: Any, run: Run) -> None:
    run()
    first = finished_weights(workshop.output)

    run()

    assert finished_weights(workshop.output) == first


def test_every_wrong_reference_is_reported_before_anything_runs(workshop: Any, run: Run) -> None:
    workshop.write(
        model="toy_parts:buld", data={"evaluate": "toy_party:evaluate"}, train="toy_parts:HERE"
    )

    with pytest.raises(ConfigError) as caught:
        run()

    assert str(caught.value) == (
        f"{workshop.file} has 3 problems:\n"
        "  model: 'toy_parts' has no attribute 'buld' (did you mean 'build'?)\n"
        f"  data.evaluate: there is no module 'toy_party' in {workshop.folder} "
        f"{AMONG_PACKAGES} (did you mean 'toy_parts'?)\n"
        "  train: 'toy_parts:HERE' is a PosixPath, expected a callable"
    )
    assert workshop.diary() == []
    assert not workshop.partial.exists()


def test_a_builder_that_returns_no_module_is_an_error(workshop: Any, run: Run) -> None:
    workshop.code("toy_empty.py", "def build():\n    pass\n")
    workshop.write(model="toy_empty:build")

    with pytest.raises(ConfigError) as caught:
        run()

    assert str(caught.value) == (
        f"{workshop.file} has 1 problem:\n  model: returned nothing, expected a torch.nn.Module"
    )


def test_an_evaluation_that_returns_no_number_is_an_error(workshop: Any, run: Run) -> None:
    workshop.code("toy_words.py", "def words(model):\n    return {'accuracy': 'high'}\n")
    workshop.write(data={"evaluate": "toy_words:words"})

    with pytest.raises(ConfigError) as caught:
        run()

    assert str(caught.value) == (
        f"{workshop.file} has 1 problem:\n"
        "  data.evaluate: returned a str for 'accuracy', expected a number or "
        f"{MAPPING_OF_NAMES} numbers"
    )


def test_a_recipe_that_does_not_fit_keeps_the_result_before(workshop: Any, run: Run) -> None:
    run()
    before = finished_weights(workshop.output)
    recipe = {
        "pruning": {
            "algorithm": "toy",
            "config_list": [
                {"op_types": ["Linear"], "target_names": ["nothing"], "sparse_ratio": 0.5}
            ],
        }
    }
    workshop.write(recipe=recipe)

    with pytest.raises(PlanError):
        run()

    assert finished_weights(workshop.output) == before


def test_a_failing_loop_keeps_what_is_finished_and_says_how_to_go_on(
    workshop: Any, run: Any
) -> None:
    (workshop.folder / "fail").touch()

    with pytest.raises(RuntimeError, match="the disk is full"):
        run()

    assert run.said.getvalue().splitlines()[-1] == (
        f"stopped while trying to train; {workshop.partial} is kept; finished: before, compress, "
        f"compressed; continue with: tersely run {workshop.file} --resume"
    )
    assert not workshop.output.exists()


def test_a_failure_before_anything_is_finished_says_so(workshop: Any, run: Any) -> None:
    workshop.code("toy_broken.py", "def build():\n    raise ValueError('no weights')\n")
    workshop.write(model="toy_broken:build")

    with pytest.raises(ValueError, match="no weights"):
        run()

    assert run.said.getvalue().splitlines()[-1] == (
        f"stopped while trying to build the model; {workshop.partial} is kept, but no phase "
        f"has finished, {NOTHING_TO} resume"
    )


def test_resuming_repeats_no_finished_phase(workshop: Any, run: Run) -> None:
    (workshop.folder / "interrupt").touch()
    with pytest.raises(KeyboardInterrupt):
        run()
    (workshop.folder / "interrupt").unlink()
    workshop.diary()

    said = run(resume=True)

    assert said.startswith("continuing after: before, compress, compressed\n")
    assert workshop.diary() == ["build", "train", "evaluate"]


def test_a_resumed_run_ends_as_one_that_was_not_interrupted(workshop: Any, run: Run) -> None:
    run()
    expected = finished_weights(workshop.output)
    metrics = read_report(workshop.output / "report.json").metrics
    (workshop.folder / "interrupt").touch()
    with pytest.raises(KeyboardInterrupt):
        run()
    (workshop.folder / "interrupt").unlink()

    run(resume=True)

    assert finished_weights(workshop.output) == expected
    assert read_report(workshop.output / "report.json").metrics == metrics


def test_a_run_stopped_after_training_does_not_train_again(
    workshop: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    expected = finished_weights(workshop.output)

    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tersely.session.session.Session.finalize", stop)
        with pytest.raises(KeyboardInterrupt):
            run()
    workshop.diary()

    run(resume=True)

    assert workshop.diary() == ["build"]
    assert finished_weights(workshop.output) == expected


def test_resuming_without_an_interrupted_run_starts_from_the_beginning(
    workshop: Any, run: Run
) -> None:
    said = run(resume=True)

    assert said.startswith("nothing to resume: starting from the beginning\n")
    assert workshop.diary()[0] == "build"


def test_resuming_a_finished_run_says_so_and_shows_its_report(workshop: Any, run: Run) -> None:
    run()
    workshop.diary()

    said = run(resume=True)

    assert said.startswith(f"nothing to resume: the run in {workshop.output} is finished\n")
    assert "all pruned weights" in said
    assert workshop.diary() == []


def test_an_interrupted_run_of_another_job_is_not_resumed(workshop: Any, run: Run) -> None:
    (workshop.folder / "interrupt").touch()
    with pytest.raises(KeyboardInterrupt):
        run()
    workshop.write(seed=8, model_args={"width": 4})

    with pytest.raises(SessionFileError) as caught:
        run(resume=True)

    assert str(caught.value) == (
        f"{workshop.partial} holds a run of {OTHER_JOB}: model, seed changed; run it without "
        "--resume, or undo the change"
    )


def test_running_anew_discards_the_interrupted_run_and_says_so(workshop: Any, run: Run) -> None:
    (workshop.folder / "interrupt").touch()
    with pytest.raises(KeyboardInterrupt):
        run()
    (workshop.folder / "interrupt").unlink()
    workshop.diary()

    said = run()

    assert said.startswith(f"starting over; the interrupted run in {workshop.partial} is discarded")
    assert workshop.diary() == ["build", "evaluate", "evaluate", "train", "evaluate"]


def test_a_damaged_checkpoint_is_an_error_that_names_it(workshop: Any, run: Run) -> None:
    (workshop.folder / "interrupt").touch()
    with pytest.raises(KeyboardInterrupt):
        run()
    place = workshop.partial / "checkpoint" / "compress" / "weights.safetensors"
    place.write_bytes(place.read_bytes()[:20])

    with pytest.raises(SessionFileError) as caught:
        run(resume=True)

    assert str(caught.value).startswith(f"{place} has 20 bytes, expected ")
    assert str(caught.value).endswith(f"changed; {without_resume()}")


def test_a_checkpoint_of_another_architecture_is_an_error(workshop: Any, run: Run) -> None:
    (workshop.folder / "interrupt").touch()
    with pytest.raises(KeyboardInterrupt):
        run()
    (workshop.folder / "interrupt").unlink()
    # Another length, so that Python does not take the bytecode of a file written this second.
    workshop.code(
        "toy_parts.py",
        (workshop.folder / "toy_parts.py").read_text().replace("width=4", "width=50"),
    )
    import sys

    del sys.modules["toy_parts"]

    with pytest.raises(SessionFileError, match=unfit_checkpoint()):
        run(resume=True)


def test_a_failing_run_keeps_the_finished_one(workshop: Any, run: Run) -> None:
    run()
    before = finished_weights(workshop.output)
    (workshop.folder / "fail").touch()

    with pytest.raises(RuntimeError):
        run()

    assert finished_weights(workshop.output) == before


@pytest.mark.parametrize("moves", [0, 1])
def test_a_crash_between_the_moves_of_the_swap_loses_nothing(
    workshop: Any, run: Run, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    run()
    expected = finished_weights(workshop.output)
    rename = Path.rename
    done = []

    def cut(path: Path, target: Path) -> Path:
        if len(done) == moves:
            raise KeyboardInterrupt
        done.append(path)
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", cut)
        with pytest.raises(KeyboardInterrupt):
            run()

    workshop.diary()
    run(resume=True)

    assert workshop.diary() == []
    assert finished_weights(workshop.output) == expected
    assert not workshop.previous.exists()
    assert not workshop.partial.exists()


def test_files_of_others_in_the_output_are_never_removed(workshop: Any, run: Run) -> None:
    workshop.output.mkdir(parents=True)
    (workshop.output / "thesis.tex").write_text("years of work")

    with pytest.raises(ConfigError) as caught:
        run()

    assert str(caught.value) == (
        "the document has 1 problem:\n"
        f"  output: {workshop.output} holds files that no run of tersely wrote, and a run replaces "
        "its whole output (name a folder of its own, such as 'runs/first')"
    )
    assert (workshop.output / "thesis.tex").read_text() == "years of work"


def test_an_empty_output_folder_is_fine(workshop: Any, run: Run) -> None:
    workshop.output.mkdir(parents=True)

    run()

    assert (workshop.output / "report.html").is_file()


def test_an_output_that_is_a_file_is_an_error(workshop: Any, run: Run) -> None:
    workshop.output.parent.mkdir()
    workshop.output.touch()

    with pytest.raises(ConfigError, match="is a file, expected a folder or nothing"):
        run()


def test_a_damaged_record_is_an_error_that_says_what_to_remove(workshop: Any, run: Run) -> None:
    workshop.partial.mkdir(parents=True)
    (workshop.partial / "run.json").write_text("{")

    with pytest.raises(SessionFileError) as caught:
        run()

    assert str(caught.value) == (
        f"{workshop.partial / 'run.json'} {INCOMPLETE_JSON} (Expecting {KEY_IN_QUOTES}: line "
        f"1 column 2 (char 1)); remove {workshop.partial} and run the job again"
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"parts": None}, "parts: None is not of type 'object'"),
        ({"done": None}, "done: None is not of type 'array'"),
        ({"done": [1]}, r"done\[0\]: 1 is not of type 'string'"),
        ({"metrics": {"before": []}}, r"metrics.before: \[\] is not valid"),
        ({"state": "asleep"}, "state: 'asleep' is not one of"),
        ({"epochs": -1}, "epochs: -1 is not valid"),
        ({"files": {"model.safetensors": "big"}}, "'big' is not of type 'integer'"),
        ({"metrics": {"before": 1.5}}, f"{CHANGED_AFTER} written"),
    ],
)
def test_a_changed_record_is_an_error_that_names_the_key(
    workshop: Any, run: Run, change: dict[str, Any], complaint: str
) -> None:
    run()
    place = workshop.output / "run.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), **change}))

    with pytest.raises(SessionFileError, match=complaint) as caught:
        run()

    assert str(caught.value).startswith(f"{place} ")


def test_a_record_nested_without_end_is_an_error(workshop: Any, run: Run) -> None:
    workshop.partial.mkdir(parents=True)
    (workshop.partial / "run.json").write_text("[" * 100_000)

    with pytest.raises(SessionFileError, match=INCOMPLETE_JSON):
        run()


@pytest.mark.parametrize("name", ["model.safetensors", "report.html", "session/session.json"])
def test_a_finished_run_is_not_published_without_what_its_record_promises(
    workshop: Any, run: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run()
    before = finished_weights(workshop.output)

    def stop(output: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tersely.jobs.runner.publish", stop)
        with pytest.raises(KeyboardInterrupt):
            run()
    (workshop.partial / name).unlink()

    with pytest.raises(SessionFileError) as caught:
        run(resume=True)

    assert str(caught.value).startswith(f"{workshop.partial / name} is missing, and ")
    assert str(caught.value).endswith(f"remove {workshop.partial} and run the job again")
    assert finished_weights(workshop.output) == before


def test_a_record_of_a_newer_version_is_an_error(workshop: Any, run: Run) -> None:
    workshop.partial.mkdir(parents=True)
    record = {"format": "tersely-run", "version": 2}
    (workshop.partial / "run.json").write_text(json.dumps(record))

    with pytest.raises(SessionFileError, match="has run format 2, this tersely reads 1; remove "):
        run()


def test_what_is_left_of_a_removed_run_is_still_known_as_one(
    workshop: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()

    def stop(path: Path, *arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", stop)
        with pytest.raises(KeyboardInterrupt):
            folders.remove_run(workshop.output)

    folders.check_output(workshop.output)
