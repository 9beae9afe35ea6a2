"""The raw weights of a model with its session: enough to continue exactly where a phase ended."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tersely.errors import SessionFileError
from tersely.json_value import Json
from tersely.session.loading import cut_as_saved, load_session
from tersely.session.session import Session
from tersely.storage.durable import write_whole
from tersely.storage.json_file import check_digest, check_shape, read_json_file, with_digest
from tersely.storage.seal import SEAL, read_sealed, seal_of
from tersely.storage.tensor_file import tensors_in, write_tensors

FORMAT = "tersely-checkpoint"
VERSION = 1
INDEX = "checkpoint.json"
WEIGHTS = "weights.safetensors"

_ADVICE = "run the job again without --resume"
_SHAPE: Json = {
    "required": ["format", "version", "files"],
    "properties": {
        "format": {"const": FORMAT},
        "version": {"const": VERSION},
        "files": {"type": "object", "additionalProperties": SEAL},
    },
}


def save_checkpoint(
    folder: Path, model: nn.Module, session: Session, *, names: Sequence[str]
) -> None:
    """Write a session and the raw values of a model's own parameters and buffers.

    Args:
        folder: the session's folder; it also contains the weights.
        model: the attached model.
        session: its session.
        names: the keys that ``model.state_dict()`` had before it was attached.

    Raises:
        SessionFileError: something cannot be written.
    """
    state = model.state_dict()
    session.save(folder)
    try:
        place, digest = write_tensors(folder / WEIGHTS, {name: state[name] for name in names})
        _write_index(folder, {WEIGHTS: seal_of(place, digest=digest)})
    except (OSError, TypeError) as error:
        raise SessionFileError(
            f"{folder / WEIGHTS} was not written: {error}", path=folder / WEIGHTS
        ) from error


def add_to_checkpoint(folder: Path, name: str) -> None:
    """Let a checkpoint answer for a further file in its folder.

    Args:
        folder: what `save_checkpoint` wrote.
        name: the file's name.

    Raises:
        SessionFileError: the checkpoint is damaged.
        OSError: it cannot be written.
    """
    _write_index(folder, {**_read_index(folder), name: seal_of(folder / name)})


def read_from_checkpoint(folder: Path, name: str) -> bytes:
    """Read a file of a checkpoint, every byte as it was written.

    Args:
        folder: what `save_checkpoint` wrote.
        name: the file's name.

    Raises:
        SessionFileError: the file or the checkpoint is damaged; names the file.
    """
    files = _read_index(folder)
    if name not in files:
        raise SessionFileError(
            f"{folder / INDEX} does not know {name}; {_ADVICE}", path=folder / INDEX
        )
    return read_sealed(folder / name, files[name], advice=_ADVICE)


def _write_index(folder: Path, files: Mapping[str, Json]) -> None:
    document = with_digest({"format": FORMAT, "version": VERSION, "files": files})
    write_whole(folder / INDEX, json.dumps(document, indent=1) + "\n")


def _read_index(folder: Path) -> dict[str, Json]:
    place = folder / INDEX
    try:
        document = read_json_file(place, advice=_ADVICE)
    except OSError as error:
        if isinstance(error, SessionFileError):
            raise
        reason = error.strerror or error
        raise SessionFileError(
            f"{place} cannot be read: {reason}; {_ADVICE}", path=place
        ) from error
    check_shape(document, {"type": "object", **_SHAPE}, place=place, advice=_ADVICE)
    check_digest(document, place=place, advice=_ADVICE)
    return dict(document["files"])


def load_checkpoint(
    folder: Path, model: nn.Module, *, teacher: nn.Module | None, example_inputs: Any = None
) -> Session:
    """Put the saved weights into a fresh model and its saved session in force.

    Args:
        folder: what `save_checkpoint` wrote.
        model: the model as it was built, not attached.
        teacher: the teacher, when the session distils.
        example_inputs: what the model is run with where it is shrunk.

    Returns:
        The session, in force on ``model``.

    Raises:
        SessionFileError: the files are damaged or belong to another model, which is as it was.
    """
    place = folder / WEIGHTS
    try:
        tensors = tensors_in(read_from_checkpoint(folder, WEIGHTS))
    except ValueError as error:
        raise SessionFileError(
            f"{place} cannot be read ({error}); {_ADVICE}", path=place
        ) from error
    before = {name: one.to("cpu", copy=True) for name, one in own_tensors(model).items()}
    undoing = cut_as_saved(model, folder)
    try:
        _load(model, tensors, place)
        return load_session(model, folder, teacher=teacher, example_inputs=example_inputs)
    except BaseException:
        undoing.undo()
        model.load_state_dict(before, strict=False)
        raise


def _load(model: nn.Module, tensors: Mapping[str, Tensor], place: Path) -> None:
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise SessionFileError(
            f"{place} does not fit the model that the job builds now; {_ADVICE}: {error}",
            path=place,
        ) from error


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors among a model's state, which may also hold extra state of any kind.

    Args:
        model: any model.
    """
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
