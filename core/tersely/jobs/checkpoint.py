"""The raw weights of a model beside its session: enough to go on exactly where a phase ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from tersely.errors import SessionFileError
from tersely.session.opening import load_session
from tersely.session.session import Session
from tersely.storage.tensor_file import read_tensors, write_tensors

WEIGHTS = "weights.safetensors"


def save_checkpoint(
    folder: Path, model: nn.Module, session: Session, *, names: Sequence[str]
) -> None:
    """Write a session and the raw values of a model's own parameters and buffers.

    Args:
        folder: the session's folder; the weights lie in it too.
        model: the attached model.
        session: its session.
        names: the keys that ``model.state_dict()`` had before it was attached.

    Raises:
        SessionFileError: something cannot be written.
    """
    state = model.state_dict()
    session.save(folder)
    try:
        write_tensors(folder / WEIGHTS, {name: state[name] for name in names})
    except (OSError, TypeError) as error:
        raise SessionFileError(f"{folder / WEIGHTS} was not written: {error}") from error


def load_checkpoint(folder: Path, model: nn.Module, *, teacher: nn.Module | None) -> Session:
    """Put the saved weights into a fresh model and its saved session in force.

    Args:
        folder: what `save_checkpoint` wrote.
        model: the model as it was built, not attached.
        teacher: the teacher, when the session distils.

    Returns:
        The session, in force on ``model``.

    Raises:
        SessionFileError: the files are damaged or belong to another model.
    """
    place = folder / WEIGHTS
    try:
        tensors = read_tensors(place)
    except (OSError, ValueError) as error:
        raise SessionFileError(
            f"{place} cannot be read ({error}); run the job again without --resume"
        ) from error
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise SessionFileError(
            f"{place} does not fit the model that the job builds now; run the job again without "
            f"--resume: {error}"
        ) from error
    return load_session(model, folder, teacher=teacher)


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors among a model's state, which may also hold extra state of any kind.

    Args:
        model: any model.
    """
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
