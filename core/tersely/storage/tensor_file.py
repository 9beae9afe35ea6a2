"""Tensors in safetensors files, written atomically: the storage of sessions and results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from tersely.json_value import Json
from tersely.storage.durable import discard, make_folder, move_whole, partial_path

_CHUNK = 1 << 20
_HEAD = 8  # bytes that hold the length of a safetensors header
_ALIGNED = 8  # bytes of which the header's length is a multiple

_TYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float32: "F32",
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.uint64: "U64",
}
"""The dtypes of safetensors files, and their names there; files store the last ones first."""


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    notes: Mapping[str, str] | None = None,
    rename: Callable[[Path, str], Path] | None = None,
) -> tuple[Path, str]:
    """Write tensors so that a crash at any byte leaves no file, the old one or the new one.

    Args:
        path: the file.
        tensors: dense tensors of any device and layout. One that has several names is written
            once, under the first; the metadata has the others, as `safetensors.torch.save_model`
            writes it. Tensors that share a part of their memory are written once each.
        notes: what else the metadata says; no value may be the name of a tensor.
        rename: called with ``path`` and the content's SHA-256; returns the final place next to it.

    Returns:
        The place of the file and the SHA-256 of its content.

    Raises:
        TypeError: a tensor is sparse or has a dtype that safetensors cannot hold.
        OSError: the file cannot be written.
    """
    make_folder(path.parent)
    partial = partial_path(path)
    try:
        partial.touch()
        mode = partial.stat().st_mode  # safetensors makes files that only their owner can read
        try:
            single, aliases = _without_aliases(tensors)
            metadata = {**aliases, **(notes or {})}
            safetensors.torch.save_file(independent(single), partial, metadata=metadata)
            if len(metadata) > 1:
                _sort_metadata(partial)
        except safetensors.SafetensorError as error:  # raised for a full disk, among others
            raise OSError(f"{partial}: {error}") from error
        partial.chmod(mode)
        digest = file_digest(partial)
        place = path if rename is None else rename(path, digest)
        move_whole(partial, place)
    except BaseException:
        discard(partial)
        raise
    return place, digest


def _sort_metadata(path: Path) -> None:
    """Sort the metadata, whose order in safetensors differs from process to process."""
    with path.open("r+b") as stream:
        length = int.from_bytes(stream.read(_HEAD), "little")
        header = json.loads(stream.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= length:
            stream.seek(_HEAD)
            stream.write(text.ljust(length))


def written_size(tensors: Mapping[str, Tensor]) -> int:
    """Return how many bytes `write_tensors` would write, without writing them.

    Args:
        tensors: as `write_tensors` takes them.

    Raises:
        TypeError: as of `write_tensors`.
    """
    single, metadata = _without_aliases(tensors)
    for name, tensor in single.items():
        _need_storable(name, tensor)
    header: dict[str, Json] = {"__metadata__": metadata}
    places = {dtype: place for place, dtype in enumerate(_TYPES)}
    end = 0
    for name in sorted(single, key=lambda name: (-places[single[name].dtype], name)):
        tensor = single[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    return _HEAD + -(-len(text) // _ALIGNED) * _ALIGNED + end


def tensors_in(content: bytes) -> dict[str, Tensor]:
    """Return every tensor of a safetensors file, in memory that belongs to the caller.

    Args:
        content: the file's bytes.

    Returns:
        Name -> tensor on the CPU, also for the further names of a tensor that has several.

    Raises:
        ValueError: this is not the content of a safetensors file; the text says why.
    """
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error
    for alias, name in metadata_in(content).items():
        if name in tensors and alias not in tensors:
            tensors[alias] = tensors[name].clone()
    return tensors


def metadata_in(content: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file that `tensors_in` has read.

    Args:
        content: the file's bytes.
    """
    length = int.from_bytes(content[:_HEAD], "little")
    found: dict[str, str] = json.loads(content[_HEAD : _HEAD + length]).get("__metadata__", {})
    return found


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal.

    Args:
        path: the file, which is read in pieces.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def independent(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return detached, contiguous CPU tensors of which no two share memory.

    Args:
        tensors: name -> tensor; not modified.

    Raises:
        TypeError: a tensor is sparse or has a dtype that safetensors cannot hold.
    """
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        _need_storable(name, tensor)
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        if place in seen and plain.numel():
            plain = plain.clone()
        seen.add(place)
        result[name] = plain
    return result


def _need_storable(name: str, tensor: Tensor) -> None:
    if tensor.layout != torch.strided or tensor.dtype not in _TYPES:
        raise TypeError(
            f"{name!r} is a {tensor.layout} tensor of {tensor.dtype}, which a safetensors file "
            "cannot hold; convert it to a dense tensor of a common dtype first"
        )


def _without_aliases(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return each tensor under its first name, and the metadata that has the others."""
    aliases = _aliases(tensors)
    single = {name: value for name, value in tensors.items() if name not in aliases}
    return single, {**aliases, "format": "pt"}


def _aliases(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    first: dict[object, str] = {}
    aliases = {}
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or not tensor.numel():
            continue
        place = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride())
        kept = first.setdefault(place, name)
        if kept != name:
            aliases[name] = kept
    return aliases
