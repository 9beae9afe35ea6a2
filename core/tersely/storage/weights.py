"""A model's own weights on disk: data only, by the names that the user knows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tersely.errors import SessionFileError
from tersely.instrument.names import PREFIX
from tersely.shrinking.graph.program import named_tensors
from tersely.storage.digests import digest_of_tensors
from tersely.storage.tensor_file import metadata_in, tensors_in, write_tensors

WEIGHTS = "model.safetensors"
_DIGEST = "tersely_sha256"


def save_weights(
    model: nn.Module,
    directory: str | os.PathLike[str],
    *,
    kept: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the state dict of a model without what tersely added.

    Args:
        model: the model.
        directory: a folder; made when missing.
        kept: parameter -> what its mask keeps, bool, the parameter's shape; the rest is written as
            zeros.

    Raises:
        SessionFileError: it cannot be written.
    """
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_weights(folder / WEIGHTS, {**_own(model), **_masked(model, kept or {})})
    except OSError as error:
        raise SessionFileError(
            f"{folder}: the model's weights were not saved: {error.strerror or error}", path=folder
        ) from error


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the tensors of a model, with their digest in the file's metadata.

    Args:
        path: the file, which is replaced whole or not at all.
        tensors: as for `write_tensors`.

    Raises:
        TypeError: as of `write_tensors`.
        OSError: the file cannot be written.
    """
    write_tensors(path, tensors, notes={_DIGEST: digest_of_tensors(tensors)})


def load_weights(model: nn.Module, path: Path) -> None:
    """Load weights that fit the model exactly.

    Args:
        model: the model.
        path: the file.

    Raises:
        SessionFileError: the file is missing or damaged, or does not fit.
    """
    try:
        content = path.read_bytes()
        tensors = tensors_in(content)
    except (OSError, ValueError) as error:
        raise SessionFileError(f"{path} cannot be read: {error}", path=path) from error
    digest = metadata_in(content).get(_DIGEST)
    if digest not in (None, digest_of_tensors(tensors)):
        raise SessionFileError(
            f"{path} is damaged: its tensors do not fit the digest in it; restore it from a copy, "
            "or write it again",
            path=path,
        )
    own = _own(model)
    for name, tensor in own.items():
        found = tensors.get(name)
        if found is None or found.shape != tensor.shape:
            shape = "nothing" if found is None else f"the shape {list(found.shape)}"
            raise SessionFileError(
                f"{path} holds {shape} for {name}, which has {list(tensor.shape)} in this model; "
                "build the model that was shrunk",
                path=path,
                target=name,
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _masked(model: nn.Module, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what masks leave of tensors that they leave less of, by every name of tied ones."""
    tensors = named_tensors(model)
    masks = {id(tensors[name]): mask for name, mask in kept.items() if not bool(mask.all())}
    return {
        name: tensor.detach().where(masks[id(tensor)], 0)
        for name, tensor in tensors.items()
        if id(tensor) in masks
    }


def _own(model: nn.Module) -> dict[str, Tensor]:
    state = model.state_dict()
    return {
        name: tensor
        for name, tensor in state.items()
        if isinstance(tensor, Tensor) and not name.rpartition(".")[2].startswith(PREFIX)
    }
