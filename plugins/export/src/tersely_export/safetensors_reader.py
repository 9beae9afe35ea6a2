"""A reader of files of the format ``safetensors``, with NumPy and without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

from tersely_export.bit_streams import unpack_bits

SCHEMA_VERSION = 1
"""The version of the description in the metadata."""

_PIECE = 1 << 18
"""Numbers rounded at a time, since rounding takes several times their memory."""

_TYPES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "BF16": "<u2",
    "F8_E4M3": "u1",
    "F8_E5M2": "u1",
}
"""The NumPy types that read those of safetensors; NumPy lacks the last three."""


class StoredWeights(Mapping[str, numpy.ndarray]):
    """The tensors of a file by their names in the model, each read on access.

    Values are those that the model computes with: dequantized, with zeros, under every name of a
    tied tensor. bfloat16 and float8 become float32.

    Args:
        places: stored name -> its file, and its entry in the header of that file.
        description: their description in the metadata.
    """

    def __init__(
        self, places: Mapping[str, tuple[Path, Mapping[str, Any]]], description: Mapping[str, Any]
    ) -> None:
        self._places = places
        self._entries: Mapping[str, Mapping[str, Any]] = description["tensors"]
        self._tied: Mapping[str, str] = description["tied"]
        self.activations: tuple[Mapping[str, Any], ...] = tuple(description["activations"])
        """How inputs and outputs are quantized, according to the metadata."""

    def __getitem__(self, name: str) -> numpy.ndarray:
        name = self._tied.get(name, name)
        entry = self._entries.get(name)
        if entry is None:
            return self._read(name)
        if "scale" not in entry:
            return self.integers(name)
        values = self.integers(name)
        precise = numpy.promote_types(self._read(entry["scale"]).dtype, numpy.float32)
        if "levels" in entry:
            levels = self._read(entry["levels"]).astype(precise)[values]
        else:
            levels = values.astype(precise)
        # By blocks and in place, without a second array of the weight's size.
        blocks = levels.reshape(_split(levels.shape, self._read(entry["scale"]).shape))
        if "zero_point" in entry:
            blocks -= self._by_block(entry["zero_point"]).astype(precise)
        blocks *= self._by_block(entry["scale"]).astype(precise)
        found = _rounded(levels, entry["dtype"])
        if entry.get("input_scale_divides") == "weight":
            factors, shape = self._read(entry["input_scale"]), [1] * found.ndim
            shape[entry["input_dim"]] = -1
            shape[0] = len(factors) if factors.ndim > 1 else shape[0]  # the factors of each expert
            found = _rounded(found / factors.reshape(shape), entry["dtype"])
        return found

    def __iter__(self) -> Iterator[str]:
        parts = {part for entry in self._entries.values() for part in _parts(entry)}
        parts |= {part for one in self.activations for part in _parts(one)}
        yield from (name for name in self._places if name not in parts)
        yield from self._entries
        yield from self._tied

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def integers(self, name: str) -> numpy.ndarray:
        """Return the integers of a quantized weight, or any other tensor as it is.

        Args:
            name: its name in the model.
        """
        entry = self._entries.get(name)
        if entry is None:
            return self._read(name)
        shape = tuple(entry["shape"])
        kept = self._kept(entry, shape)
        count = int(kept.sum()) if kept is not None else int(numpy.prod(shape, dtype=numpy.int64))
        values = self._read(entry["values"])
        if "bits" in entry:
            values = unpack_bits(values, entry["bits"], count)
            values += entry["offset"]
        if kept is None:
            return values.reshape(shape)
        found = numpy.zeros(shape, values.dtype)
        if "zero_point" in entry:
            zero_point = self._by_block(entry["zero_point"])
            found.reshape(_split(shape, zero_point.shape[::2]))[...] = zero_point
        found[kept] = values
        return found

    def size_of(self, name: str) -> int:
        """Return the bytes of a tensor in the file, including scales and everything else.

        Args:
            name: its name in the model.
        """
        entry = self._entries.get(name)
        parts = [name] if entry is None else _parts(entry)
        total = 0
        for part in parts:
            start, end = self._places[part][1]["data_offsets"]
            total += end - start
        return total

    def _kept(self, entry: Mapping[str, Any], shape: tuple[int, ...]) -> numpy.ndarray | None:
        if "kept" not in entry:
            return None
        count = int(numpy.prod(shape, dtype=numpy.int64))
        flat = numpy.unpackbits(self._read(entry["kept"]), count=count, bitorder="little")
        return flat.astype(bool).reshape(shape)

    def _by_block(self, name: str) -> numpy.ndarray:
        """Return one value for each block, with a dimension of 1 after each: see `_split`."""
        value = self._read(name)
        return value.reshape([part for count in value.shape for part in (count, 1)])

    def _read(self, name: str) -> numpy.ndarray:
        path, entry = self._places[name]
        start, end = entry["data_offsets"]
        with path.open("rb") as stream:
            stream.seek(8 + int.from_bytes(stream.read(8), "little") + start)
            data = stream.read(end - start)
        values = numpy.frombuffer(data, _TYPES[entry["dtype"]])
        return _as_float(values, entry["dtype"]).reshape(entry["shape"]).copy()


def read_stored(path: Path) -> StoredWeights:
    """Open a file of the format ``safetensors``.

    Args:
        path: the file; for shards, the index or the path that was given to the export.

    Raises:
        ValueError: the file does not describe its tensors, or is of a later version.
    """
    path = Path(path)
    index = path if path.suffix == ".json" else path.with_name(f"{path.name}.index.json")
    files = [path]
    if index == path or (index.exists() and not path.exists()):
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        files = [index.with_name(name) for name in dict.fromkeys(names)]
    places: dict[str, tuple[Path, Mapping[str, Any]]] = {}
    description: Mapping[str, Any] = {}
    for file in files:
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        metadata = header.pop("__metadata__", {})
        if "tersely" not in metadata:
            raise ValueError(
                f"{file} does not say how its tensors are stored: its metadata has no 'tersely'; "
                "read it with safetensors itself"
            )
        description = json.loads(metadata["tersely"])
        if description["version"] > SCHEMA_VERSION:
            raise ValueError(
                f"{file} is of version {description['version']}, and this reads up to "
                f"{SCHEMA_VERSION}; update tersely-export"
            )
        places |= {name: (file, entry) for name, entry in header.items()}
    return StoredWeights(places, description)


def _split(shape: Sequence[int], counts: Sequence[int]) -> list[int]:
    """Return a shape in which each dimension is split into (blocks, length of a block)."""
    return [
        part
        for length, count in zip(shape, counts, strict=True)
        for part in (count, length // max(count, 1))
    ]


def _parts(entry: Mapping[str, Any]) -> list[str]:
    keys = ("values", "kept", "scale", "zero_point", "levels", "input_scale")
    return [entry[key] for key in keys if key in entry]


def _as_float(values: numpy.ndarray, kind: str) -> numpy.ndarray:
    found = values
    if kind == "BF16":
        found = (values.astype("<u4") << 16).view("<f4")
    elif kind == "F8_E5M2":  # the upper half of a float16
        found = (values.astype("<u2") << 8).view("<f2").astype("<f4")
    elif kind == "F8_E4M3":
        found = _FLOAT8[values]
    return found


def _float8() -> numpy.ndarray:
    codes = numpy.arange(128)
    exponent, fraction = codes >> 3, codes & 7
    value = numpy.where(
        exponent > 0, (1 + fraction / 8) * 2.0 ** (exponent - 7), fraction * 2.0**-9
    )
    value[-1] = numpy.nan
    found: numpy.ndarray = numpy.concatenate([value, -value]).astype("<f4")
    return found


_FLOAT8 = _float8()


def _rounded(values: numpy.ndarray, dtype: str) -> numpy.ndarray:
    if dtype != "bfloat16":
        return values.astype(dtype, copy=False)
    found = values.astype("<f4")
    flat = found.reshape(-1).view("<u4")
    for start in range(0, flat.size, _PIECE):
        # Ties to even, as torch rounds.
        words = flat[start : start + _PIECE].astype("<u8")
        flat[start : start + _PIECE] = (words + 0x7FFF + ((words >> 16) & 1)) & 0xFFFF0000
    return found
