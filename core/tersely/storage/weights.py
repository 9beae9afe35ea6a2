"""A model's own weights on disk: data only, by the names that the user knows."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from tersely.errors import SessionFileError
from tersely.instrument.names import PREFIX
from tersely.storage.tensor_file import read_tensors, write_tensors

WEIGHTS = "model.safetensors"


def save_weights(model: nn.Module, directory: str | os.PathLike[str]) -> None:
    """Write the state dict of a model without what tersely added.

    Args:
        model: the model.
        directory: a folder; made when missing.

    Raises:
        SessionFileError: it cannot be written.
    """
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / WEIGHTS, _own(model))
    except OSError as error:
        raise SessionFileError(
            f"{folder}: the model's weights were not saved: {error.strerror or error}", path=folder
        ) from error


def load_weights(model: nn.Module, path: Path) -> None:
    """Load weights that fit the model exactly.

    Args:
        model: the model.
        path: the file.

    Raises:
        SessionFileError: the file is missing or damaged, or does not fit.
    """
    try:
        tensors = read_tensors(path)
    except (OSError, ValueError) as error:
        raise SessionFileError(f"{path} cannot be read: {error}", path=path) from error
    own = _own(model)
    for name, tensor in own.items():
        found = tensors.get(name)
        if found is None or found.shape != tensor.shape:
            shape = "nothing" if found is None else f"the shape {list(found.shape)}"
            raise SessionFileError(
                f"{path} holds {shape} for {name}, which has {list(tensor.shape)} in this model; "
                f"build the model that was shrunk",
                path=path,
                target=name,
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _own(model: nn.Module) -> dict[str, Tensor]:
    state = model.state_dict()
    return {
        name: tensor
        for name, tensor in state.items()
        if isinstance(tensor, Tensor) and not name.rpartition(".")[2].startswith(PREFIX)
    }
