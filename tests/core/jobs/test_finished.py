"""The finished model of a run, given back from its folder."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from messages.files import no_finished_run
from safetensors.torch import load_file

import tersely
from tersely.errors import ConfigError, SessionFileError
from tersely.jobs.finished import finished_job
from tersely.storage.json_file import body_digest, with_digest

Run = Callable[..., str]


def toy(width: int = 4) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(width, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))


def test_the_model_of_a_run_comes_back_with_its_finished_weights(workshop: Any, run: Run) -> None:
    run()
    written = load_file(workshop.output / "model.safetensors")

    model = tersely.load_run(workshop.output)

    state = model.state_dict()
    assert list(state) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert all(torch.equal(state[name], written[name]) for name in state)
    assert type(model[0]) is torch.nn.Linear
    assert not model.training


def test_a_model_of_the_users_own_is_given_the_weights_in_place(workshop: Any, run: Run) -> None:
    run()
    own = toy()
    weight = own[0].weight
    workshop.diary()

    assert tersely.load_run(workshop.output, own) is own

    assert own[0].weight is weight
    assert torch.equal(weight, load_file(workshop.output / "model.safetensors")["0.weight"])
    assert workshop.diary() == []


def test_a_run_in_a_folder_that_was_moved_with_its_job_is_read(
    workshop: Any, run: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run()
    moved = tmp_path_factory.mktemp("elsewhere") / "all"
    shutil.copytree(workshop.folder, moved)
    shutil.rmtree(workshop.folder)
    sys.modules.pop("toy_parts", None)

    model = tersely.load_run(moved / "runs" / "first")

    assert torch.equal(
        model[0].weight, load_file(moved / "runs/first/model.safetensors")["0.weight"]
    )


def test_a_run_whose_job_is_gone_is_read_into_a_given_model(
    workshop: Any, run: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run()
    moved = tmp_path_factory.mktemp("elsewhere") / "first"
    shutil.copytree(workshop.output, moved)
    shutil.rmtree(workshop.folder)
    sys.modules.pop("toy_parts", None)

    with pytest.raises(ConfigError, match="there is no module 'toy_parts'"):
        tersely.load_run(moved)

    assert torch.equal(
        tersely.load_run(moved, toy())[0].weight,
        load_file(moved / "model.safetensors")["0.weight"],
    )


def test_a_recipe_in_a_file_of_its_own_is_part_of_the_record(workshop: Any, run: Run) -> None:
    recipe = json.loads(workshop.file.read_text())["recipe"]
    (workshop.folder / "recipe.json").write_text(json.dumps(recipe))
    workshop.write(recipe="recipe.json")
    run()
    (workshop.folder / "recipe.json").unlink()

    job = finished_job(workshop.output)

    assert job.recipe.document == recipe
    assert (job.model, job.seed, job.directory) == ("toy_parts:build", 7, workshop.folder)


def test_an_interrupted_run_has_no_model(workshop: Any, run: Run) -> None:
    (workshop.folder / "fail").touch()
    with pytest.raises(RuntimeError):
        run()

    with pytest.raises(SessionFileError) as raised:
        tersely.load_run(workshop.partial)

    assert str(raised.value) == no_finished_run(
        workshop.partial, "holds a run that is not finished"
    )


def test_a_run_that_another_replaces_while_it_is_read_is_refused(workshop: Any, run: Run) -> None:
    run()
    other = workshop.output.with_name("other")
    shutil.copytree(workshop.output, other)
    record = json.loads((other / "run.json").read_text())
    del record["sha256"]
    record["metrics"]["another"] = 1.0
    (other / "run.json").write_text(json.dumps(with_digest(record)))
    own = toy()

    def replace(*_: object) -> None:
        if other.exists():
            shutil.rmtree(workshop.output)
            other.rename(workshop.output)

    own.register_load_state_dict_pre_hook(replace)
    with pytest.raises(SessionFileError, match="was replaced by another run while it was read"):
        tersely.load_run(workshop.output, own)


def test_a_folder_without_a_run_is_told_from_one(tmp_path: Path) -> None:
    with pytest.raises(SessionFileError) as raised:
        tersely.load_run(tmp_path)

    assert str(raised.value) == no_finished_run(tmp_path, "holds no run")


def test_a_model_of_another_shape_is_refused(workshop: Any, run: Run) -> None:
    run()

    with pytest.raises(SessionFileError, match="does not fit the model"):
        tersely.load_run(workshop.output, toy(6))


def test_a_session_that_does_not_fit_leaves_a_given_model_as_it_was(
    workshop: Any, run: Run
) -> None:
    run()
    index = workshop.output / "session" / "session.json"
    document = json.loads(index.read_text())
    document["plan"]["targets"][0]["shape"] = [1]
    sections = ("data", "plan", "recipe", "plugins", "state")
    document["sha256"] = body_digest({key: document[key] for key in sections})
    index.write_text(json.dumps(document))
    own = toy()
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}

    with pytest.raises(SessionFileError):
        tersely.load_run(workshop.output, own)

    assert all(torch.equal(own.state_dict()[name], before[name]) for name in before)
    assert type(own[0]) is torch.nn.Linear


def test_a_resumed_run_takes_its_job_from_the_job_not_from_the_record(
    workshop: Any, run: Run
) -> None:
    (workshop.folder / "fail").touch()
    with pytest.raises(RuntimeError):
        run()
    (workshop.folder / "fail").unlink()
    place = workshop.partial / "run.json"
    record = json.loads(place.read_text())
    del record["sha256"]
    record["job"]["seed"] = "x"
    place.write_text(json.dumps(with_digest(record)))

    run(resume=True)

    assert finished_job(workshop.output).seed == 7
