"""The teacher's targets on disk, for loops that cannot afford the teacher."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs
from torch import Tensor, nn

from tersely.distillation.pairs import Pair
from tersely.errors import SessionFileError
from tersely.json_value import Json
from tersely.storage.digests import digest_of_data, digest_of_model
from tersely.storage.durable import discard, write_whole
from tersely.storage.json_file import check_digest, check_shape, read_json_file, with_digest
from tersely.storage.seal import SEAL, check_length, read_sealed, seal_of
from tersely.storage.tensor_file import tensors_in, write_tensors

FORMAT = "tersely-teacher-cache"
VERSION = 1
INDEX = "index.json"
SHARD_BYTES = 256 * 2**20
"""A shard is written once the targets in it reach this size."""

_ADVICE = "cache again with session.cache_teacher(batches, path)"
_SHARD = r"targets-[0-9]{5,}\.safetensors"  # no name leads out of the folder
_BATCHES: Json = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0},
    "minItems": 2,
    "maxItems": 2,
}
_SHAPE: Json = {
    "required": ["shards", "sha256"],
    "properties": {
        "shards": {
            "type": "object",
            "propertyNames": {"pattern": f"^{_SHARD}$"},
            "additionalProperties": {
                "allOf": [SEAL, {"required": ["batches"], "properties": {"batches": _BATCHES}}]
            },
        }
    },
}


@attrs.define(eq=False)
class TeacherCache:
    """Targets of every batch, read shard by shard; mutable because it keeps the last shard.

    Attributes:
        folder: the folder that contains it.
        shards: name of each file -> the batches in it.
        seals: name of each file -> its length and digest.
    """

    folder: Path
    shards: Mapping[str, range]
    seals: Mapping[str, Mapping[str, Json]]
    _name: str = ""
    _tensors: Mapping[str, Tensor] = attrs.field(factory=dict)

    @property
    def batches(self) -> int:
        """How many batches there are."""
        return max((found.stop for found in self.shards.values()), default=0)

    def targets(self, batch: int) -> dict[str, Tensor]:
        """Return the teacher's targets of one batch, by ``student target>link``.

        Args:
            batch: its number, from 0, in the order in which they were cached.

        Raises:
            SessionFileError: there is no such batch, or its file is damaged.
        """
        for name, found in self.shards.items():
            if batch in found:
                if name != self._name:
                    self._tensors, self._name = self._read(name), name
                start = f"{batch}:"
                return {
                    key.removeprefix(start): tensor
                    for key, tensor in self._tensors.items()
                    if key.startswith(start)
                }
        raise SessionFileError(
            f"{self.folder} holds the batches 0 to {self.batches - 1}, not {batch}; cache again "
            "with all the batches of an epoch, in the order of the loop",
            path=self.folder,
        )

    def _read(self, name: str) -> dict[str, Tensor]:
        place = self.folder / name
        content = read_sealed(place, self.seals[name], advice=_ADVICE)
        try:
            return tensors_in(content)
        except ValueError as error:
            raise SessionFileError(
                f"{place} is damaged ({error}); {_ADVICE}", path=place
            ) from error


def write_cache(
    targets: Iterator[Mapping[str, Tensor]],
    directory: str | os.PathLike[str],
    *,
    fingerprint: Mapping[str, str],
) -> None:
    """Write the targets of all batches; the index comes last, so a broken run leaves no cache.

    Args:
        targets: for each batch, ``student target>link`` -> tensor.
        directory: a folder; a cache that is there is replaced.
        fingerprint: what the cache belongs to.

    Raises:
        SessionFileError: the folder cannot be written.
    """
    folder = Path(directory)
    shards: dict[str, dict[str, Json]] = {}
    waiting: dict[str, Tensor] = {}
    first = size = count = 0

    def flush(last: int) -> None:
        name = f"targets-{len(shards):05d}.safetensors"
        place, digest = write_tensors(folder / name, waiting)
        shards[name] = {"batches": [first, last], **seal_of(place, digest=digest)}
        waiting.clear()

    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        for number, batch in enumerate(targets):
            for key, tensor in batch.items():
                waiting[f"{number}:{key}"] = tensor.contiguous().cpu()
                size += tensor.numel() * tensor.element_size()
            count = number + 1
            if size >= SHARD_BYTES:
                flush(count)
                first, size = count, 0
        if waiting:
            flush(count)
        index = {"format": FORMAT, "version": VERSION, "shards": shards, **fingerprint}
        write_whole(folder / INDEX, json.dumps(with_digest(index), indent=2) + "\n")
        _remove_others(folder, shards)
    except OSError as error:
        raise SessionFileError(
            f"{folder} cannot be written: {error.strerror or error}; give a folder with enough "
            "free space",
            path=folder,
        ) from error


def read_cache(
    directory: str | os.PathLike[str], *, fingerprint: Mapping[str, str]
) -> TeacherCache:
    """Open a cache that belongs to a plan and, where one is there, to a teacher.

    Args:
        directory: the folder that `write_cache` wrote.
        fingerprint: what it has to belong to.

    Raises:
        SessionFileError: there is no cache, it is damaged, or it belongs to something else.
    """
    folder = Path(directory)
    place = folder / INDEX
    try:
        index = read_json_file(place, advice=_ADVICE)
    except FileNotFoundError as error:
        raise SessionFileError(
            f"{folder} holds no teacher cache: it has no {INDEX}; write one with "
            "session.cache_teacher(batches, path)",
            path=folder,
        ) from error
    except OSError as error:
        if isinstance(error, SessionFileError):
            raise
        raise SessionFileError(
            f"{place} cannot be read: {error.strerror or error}", path=place
        ) from error
    if not isinstance(index, dict) or (index.get("format"), index.get("version")) != (
        FORMAT,
        VERSION,
    ):
        raise SessionFileError(
            f"{place} is not a teacher cache of version {VERSION}; {_ADVICE}", path=place
        )
    check_shape(index, _SHAPE, place=place, advice=_ADVICE)
    check_digest(index, place=place, advice=_ADVICE)
    for part, digest in fingerprint.items():
        if index.get(part) != digest:
            raise SessionFileError(
                f"{folder} was cached with another {part}; {_ADVICE}", path=folder
            )
    shards = index["shards"]
    end = 0
    for name, found in shards.items():
        first, last = found["batches"]
        if first != end or last <= first:
            raise SessionFileError(
                f"{place} is damaged: shards.{name}.batches is {[first, last]}, expected to begin "
                f"with {end}; {_ADVICE}",
                path=place,
            )
        end = last
        check_length(folder / name, found, advice=_ADVICE)
    batches = {name: range(*found["batches"]) for name, found in shards.items()}
    return TeacherCache(folder, batches, shards)


def _remove_others(folder: Path, kept: Mapping[str, Json]) -> None:
    for place in sorted(folder.glob("targets-*.safetensors")):
        if place.name not in kept and re.fullmatch(_SHARD, place.name):
            discard(place)


def fingerprint_of(pairs: Sequence[Pair], teacher: nn.Module | None) -> dict[str, str]:
    """Return what a cache belongs to: the links, and the teacher's class and weights.

    Args:
        pairs: the session's pairs.
        teacher: the teacher, or None to leave it unchecked.
    """
    links = [[side.plan.name, list(side.teachers)] for pair in pairs for side in pair.sides]
    found = {"distillation config": digest_of_data(links)}
    if teacher is not None:
        found["teacher"] = digest_of_model(teacher)
    return found
