"""What the built-in loop keeps after each epoch, so that a killed run continues after it."""

from __future__ import annotations

import io
import pickle
import shutil
from pathlib import Path

import attrs
import torch

from tersely.errors import SessionFileError
from tersely.jobs.generators import generators_state, restore_generators
from tersely.jobs.output.checkpoint import (
    add_to_checkpoint,
    read_from_checkpoint,
    save_checkpoint,
)
from tersely.jobs.output.record import write_record
from tersely.jobs.run import Run, checkpoint_folder
from tersely.storage.durable import discard, move_whole, partial_path

TRAINING = "training.pt"
_PREFIX = "epoch-"
# What torch raises where a file of its own holds something else than it should.
_UNREADABLE = (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)


def epoch_folder(folder: Path, epochs: int) -> Path:
    """Return where the checkpoint after a number of epochs is.

    Args:
        folder: the run's folder.
        epochs: how many whole epochs it holds.
    """
    return checkpoint_folder(folder, f"{_PREFIX}{epochs}")


def keep_epoch(run: Run, optimizer: torch.optim.Optimizer, *, epochs: int) -> Run:
    """Write a checkpoint, let the record name it, and remove the one before.

    Whenever a run is killed, the record names a complete checkpoint.

    Args:
        run: the run, between two epochs.
        optimizer: the loop's optimizer.
        epochs: how many epochs are done.

    Returns:
        The run with the epochs in its record.

    Raises:
        SessionFileError: something cannot be written; the checkpoint before is untouched.
    """
    place = epoch_folder(run.folder, epochs)
    save_checkpoint(place, run.model, run.attached, names=run.weights)
    _write_training(place / TRAINING, optimizer)
    add_to_checkpoint(place, TRAINING)
    record = attrs.evolve(run.record, epochs=epochs)
    write_record(run.folder, record)
    _remove_others(place)
    return attrs.evolve(run, record=record)


def restore_training(run: Run, optimizer: torch.optim.Optimizer, *, epochs: int) -> None:
    """Put the optimizer and the random generators back to where they were after an epoch.

    Args:
        run: the run, whose model and session were restored from the same checkpoint.
        optimizer: the loop's optimizer, fresh.
        epochs: how many epochs are done.

    Raises:
        SessionFileError: the file is damaged or belongs to another model.
    """
    folder = epoch_folder(run.folder, epochs)
    place = folder / TRAINING
    content = io.BytesIO(read_from_checkpoint(folder, TRAINING))
    try:
        state = torch.load(content, weights_only=True, map_location="cpu")
        moments, generators = state["optimizer"], state["generators"]
    except _UNREADABLE as error:
        raise SessionFileError(
            f"{place} cannot be read ({error}); run the job again without --resume", path=place
        ) from error
    try:
        optimizer.load_state_dict(moments)
        restore_generators(generators)
    except _UNREADABLE as error:
        raise SessionFileError(
            f"{place} does not fit the model that the job builds now; run the job again without "
            f"--resume: {error}",
            path=place,
        ) from error


def _write_training(place: Path, optimizer: torch.optim.Optimizer) -> None:
    partial = partial_path(place)
    try:
        torch.save({"optimizer": optimizer.state_dict(), "generators": generators_state()}, partial)
        move_whole(partial, place)
    except (OSError, RuntimeError) as error:  # torch raises the latter for a full disk
        discard(partial)
        raise SessionFileError(f"{place} was not written: {error}", path=place) from error
    except BaseException:
        discard(partial)
        raise


def _remove_others(kept: Path) -> None:
    for place in sorted(kept.parent.glob(f"{_PREFIX}*")):
        if place != kept:
            shutil.rmtree(place)
