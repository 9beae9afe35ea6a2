"""The built-in loop goes on behind the last whole epoch, bit for bit, wherever it was cut off."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from messages.files import OTHER_JOB, goes_on_after, unfit_checkpoint, without_resume

from tersely.errors import SessionFileError
from tersely.jobs.output.checkpoint import add_to_checkpoint
from tersely.storage import durable

NOISY = {"data": "drawn", "build": "Noisy", "optimizer": "adam", "lr_schedule": "constant"}


@pytest.fixture
def begin() -> Callable[[], None]:
    """Put the generators where a fresh process of the user's might have them."""

    def begin() -> None:
        torch.manual_seed(3)
        random.seed(3)
        numpy.random.seed(3)

    return begin


@pytest.fixture
def cut_off(train: Any, workshop: Any) -> Callable[..., None]:
    """Train until the user interrupts the middle of an epoch."""

    def cut_off(*, epoch: int, **loop: Any) -> None:
        (workshop.folder / "stop").write_text(str(epoch))
        with pytest.raises(KeyboardInterrupt):
            train(**NOISY, **loop)

    return cut_off


def results(folder: Path) -> dict[str, bytes]:
    files = [folder / "model.safetensors", *sorted((folder / "session").iterdir())]
    return {path.name: path.read_bytes() for path in files}


def checkpoints(workshop: Any) -> list[str]:
    return sorted(path.name for path in (workshop.partial / "checkpoint").iterdir())


def test_an_interrupted_epoch_is_repeated_and_no_other(
    train: Any, workshop: Any, cut_off: Callable[..., None]
) -> None:
    train(**NOISY, epochs=4)
    whole = results(workshop.output)
    workshop.diary()
    cut_off(epoch=3, epochs=4)
    assert workshop.diary() == ["epoch", "epoch", "epoch"]
    assert checkpoints(workshop) == ["compress", "epoch-2"]

    train(**NOISY, epochs=4, options={"resume": True})

    assert train.said.startswith(goes_on_after("compress", "epoch 2"))
    assert workshop.diary() == ["epoch", "epoch"]
    assert results(workshop.output) == whole
    assert not workshop.partial.exists()


@pytest.mark.parametrize("epoch", [1, 2])
def test_without_a_seed_the_generators_go_on_where_they_were(
    train: Any, workshop: Any, cut_off: Callable[..., None], begin: Callable[[], None], epoch: int
) -> None:
    unseeded = {"epochs": 2, "job": {"seed": None}}
    begin()
    train(**NOISY, **unseeded)
    whole = results(workshop.output)
    begin()
    cut_off(epoch=epoch, **unseeded)
    torch.manual_seed(4)
    random.seed(4)
    numpy.random.seed(4)

    train(**NOISY, **unseeded, options={"resume": True})

    assert results(workshop.output) == whole


def test_a_failure_says_how_many_epochs_are_safe(run: Any, cut_off: Callable[..., None]) -> None:
    cut_off(epoch=2, epochs=3)

    assert "finished: compress, epoch 1; continue with: tersely run" in run.said.getvalue()


# The first record; every file of the first epoch's checkpoint; some of the second and of the last.
@pytest.mark.parametrize("moment", [0, 5, 6, 7, 8, 9, 10, 14, 15, 18])
def test_a_run_that_is_cut_off_while_it_writes_goes_on(
    train: Any, workshop: Any, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    train(**NOISY, epochs=3)
    whole = results(workshop.output)
    replace, count = Path.replace, iter(range(1000))

    def cut(path: Path, target: Path) -> Path:
        if next(count) == moment:
            raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut)
        # What a process that is killed does not do either.
        patch.setattr(durable, "discard", lambda path: None)
        with pytest.raises(KeyboardInterrupt):
            train(**NOISY, epochs=3)

    train(**NOISY, epochs=3, options={"resume": True})

    assert results(workshop.output) == whole


def test_a_changed_loop_is_another_job(train: Any, cut_off: Callable[..., None]) -> None:
    cut_off(epoch=2, epochs=3)

    with pytest.raises(SessionFileError, match=f"{OTHER_JOB}: loop changed"):
        train(**NOISY, epochs=3, lr=0.2, options={"resume": True})


def test_running_anew_begins_with_the_first_epoch(
    train: Any, workshop: Any, cut_off: Callable[..., None]
) -> None:
    cut_off(epoch=2, epochs=2)
    workshop.diary()

    train(**NOISY, epochs=2)

    assert workshop.diary() == ["epoch", "epoch"]


def test_a_damaged_optimizer_is_an_error_that_names_it(
    train: Any, workshop: Any, cut_off: Callable[..., None]
) -> None:
    cut_off(epoch=2, epochs=2)
    place = workshop.partial / "checkpoint" / "epoch-1" / "training.pt"
    place.write_bytes(place.read_bytes()[:100])

    with pytest.raises(SessionFileError) as caught:
        train(**NOISY, epochs=2, options={"resume": True})

    assert str(caught.value).startswith(f"{place} has 100 bytes, expected ")
    assert str(caught.value).endswith(f"changed; {without_resume()}")


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "training.pt", "checkpoint.json", "session.json"]
)
def test_any_flipped_byte_of_a_checkpoint_is_an_error_that_names_the_file(
    train: Any, workshop: Any, cut_off: Callable[..., None], name: str
) -> None:
    cut_off(epoch=2, epochs=2)
    place = workshop.partial / "checkpoint" / "epoch-1" / name
    whole = place.read_bytes()

    for index in {0, 8, len(whole) // 3, len(whole) // 2, len(whole) - 2}:
        place.write_bytes(whole[:index] + bytes([whole[index] ^ 0x01]) + whole[index + 1 :])
        with pytest.raises(SessionFileError, match=name):
            train(**NOISY, epochs=2, options={"resume": True})


def test_an_optimizer_of_other_parameters_is_an_error(
    train: Any, workshop: Any, cut_off: Callable[..., None]
) -> None:
    cut_off(epoch=2, epochs=2)
    place = workshop.partial / "checkpoint" / "epoch-1" / "training.pt"
    state = torch.load(place, weights_only=True)
    state["optimizer"]["param_groups"][0]["params"] = [0, 1]
    torch.save(state, place)
    add_to_checkpoint(place.parent, "training.pt")

    with pytest.raises(SessionFileError, match=unfit_checkpoint()):
        train(**NOISY, epochs=2, options={"resume": True})


def test_the_record_names_the_epochs(workshop: Any, cut_off: Callable[..., None]) -> None:
    cut_off(epoch=2, epochs=2)

    record = json.loads((workshop.partial / "run.json").read_text())

    assert (record["done"], record["epochs"]) == (["compress"], 1)
