"""Safetensors files, written one tensor at a time and in shards if they are large.

This exports models that do not fit into memory twice: the header needs only names, types and
shapes, and each tensor is computed when it is written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import torch
from torch import Tensor

TYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}
"""The names of types in safetensors."""

LARGEST_SHARD = 5 * 10**9
"""The most bytes of tensors in one file, by default."""

_ALIGNMENT = 8
_DIGITS = 8


@attrs.frozen(eq=False)
class StoredTensor:
    """A tensor that is computed when it is written.

    Attributes:
        name: its name in the file.
        dtype: its type.
        shape: its shape.
        make: returns the tensor, on any device.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    make: Callable[[], Tensor]

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> StoredTensor:
        """Return the entry of an existing tensor.

        Args:
            name: its name in the file.
            tensor: the tensor.
        """
        return cls(name, tensor.dtype, tuple(tensor.shape), lambda: tensor)

    @property
    def size(self) -> int:
        """Its size in bytes."""
        count = self.dtype.itemsize
        for length in self.shape:
            count *= length
        return count


def write_shards(
    tensors: Sequence[StoredTensor],
    path: Path,
    *,
    largest: int = LARGEST_SHARD,
    metadata: Mapping[str, str] | None = None,
    is_apart: bool = True,
) -> list[Path]:
    """Write tensors into one file, or into several with an index, named as in Transformers.

    Args:
        tensors: the tensors, in the order in which they are written.
        path: the file; if there are several, ``model.safetensors`` becomes
            ``model-00001-of-00003.safetensors``, and the index ``model.safetensors.index.json``.
        largest: the most bytes of tensors in one file; a larger tensor gets its own file.
        metadata: the metadata in the header.
        is_apart: whether the files have a folder of their own, which is replaced as a whole.
            Otherwise the names of shards include a digest, so that a new shard never replaces one
            to which an old index refers: ``model-00001-of-00003.1f2e3d4c.safetensors``.

    Returns:
        The files, the index first if there is one.
    """
    shards = list(_shards(tensors, largest))
    known = {"format": "pt", **(metadata or {})}
    if len(shards) == 1:
        _write(shards[0], path, known)
        return [path]
    places: list[Path] = []
    weight_map: dict[str, str] = {}
    for index, shard in enumerate(shards, 1):
        place = path.with_name(f"{path.stem}-{index:05}-of-{len(shards):05}{path.suffix}")
        digest = _write(shard, place, known)
        if not is_apart:
            place = place.rename(place.with_suffix(f".{digest[:_DIGITS]}{place.suffix}"))
        places.append(place)
        weight_map |= {one.name: place.name for one in shard}
    total = sum(one.size for one in tensors)
    index_file = path.with_name(f"{path.name}.index.json")
    content = {"metadata": {"total_size": total}, "weight_map": weight_map}
    index_file.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return [index_file, *places]


def shard_files(path: Path) -> Mapping[str, Path]:
    """Return the file of each tensor that `write_shards` wrote.

    Args:
        path: the path that was given to it.
    """
    from safetensors import safe_open  # only needed by the check

    index = path.with_name(f"{path.name}.index.json")
    if index.exists():
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {name: path.with_name(file) for name, file in names.items()}
    with safe_open(path, framework="pt") as stream:
        return dict.fromkeys(stream.keys(), path)


def _shards(tensors: Sequence[StoredTensor], largest: int) -> Iterator[list[StoredTensor]]:
    shard: list[StoredTensor] = []
    size = 0
    for tensor in tensors:
        if shard and size + tensor.size > largest:
            yield shard
            shard, size = [], 0
        shard.append(tensor)
        size += tensor.size
    yield shard


def _write(tensors: Sequence[StoredTensor], path: Path, metadata: Mapping[str, str]) -> str:
    """Write one file and return the digest of its content."""
    digest = hashlib.sha256()
    # Large items first keep every tensor aligned, as the format's own writer does.
    ordered = sorted(tensors, key=lambda one: -one.dtype.itemsize)
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    start = 0
    for tensor in ordered:
        end = start + tensor.size
        header[tensor.name] = {
            "dtype": TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little"))
        stream.write(text)
        digest.update(text)
        for tensor in ordered:
            value = tensor.make().detach().cpu().contiguous()
            if value.dtype != tensor.dtype or tuple(value.shape) != tensor.shape:
                raise ValueError(
                    f"{tensor.name} became {value.dtype} {tuple(value.shape)}, expected "
                    f"{tensor.dtype} {tensor.shape}"
                )
            if value.numel():
                data = value.reshape(-1).view(torch.uint8).numpy().data
                stream.write(data)
                digest.update(data)
    return digest.hexdigest()
