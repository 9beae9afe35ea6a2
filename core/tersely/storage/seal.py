"""The length and the digest of a file, by which a reader knows that no byte of it has changed."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from pathlib import Path

from tersely.errors import SessionFileError
from tersely.json_value import Json
from tersely.storage.tensor_file import file_digest

SEAL: Json = {
    "type": "object",
    "required": ["bytes", "sha256"],
    "properties": {
        "bytes": {"type": "integer", "minimum": 0},
        "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    },
}
"""The JSON Schema of a seal."""


def seal_of(place: Path, *, digest: str | None = None) -> dict[str, Json]:
    """Return the seal of a file that was just written.

    Args:
        place: the file.
        digest: its SHA-256, when it is known.

    Raises:
        OSError: it cannot be read.
    """
    return {"bytes": place.stat().st_size, "sha256": digest or file_digest(place)}


def check_length(place: Path, seal: Mapping[str, Json], *, advice: str) -> None:
    """Check that a file is there and as long as its seal says.

    Args:
        place: the file.
        seal: what `seal_of` returned.
        advice: what to do when it is not, as a command.

    Raises:
        SessionFileError: it is missing, no file, or of another length.
    """
    if not place.exists():
        raise SessionFileError(f"{place} is missing; {advice}", path=place)
    try:
        found = place.stat()
    except OSError as error:
        raise SessionFileError(
            f"{place} cannot be read: {error.strerror or error}; {advice}", path=place
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise SessionFileError(f"{place} is not a regular file; {advice}", path=place)
    size = found.st_size
    if size != seal["bytes"]:
        raise SessionFileError(
            f"{place} has {size} bytes, expected {seal['bytes']}: it is cut off or was changed; "
            f"{advice}",
            path=place,
        )


def read_sealed(place: Path, seal: Mapping[str, Json], *, advice: str) -> bytes:
    """Read a file whose every byte is as it was written.

    Args:
        place: the file.
        seal: what `seal_of` returned.
        advice: what to do when it is damaged, as a command.

    Raises:
        SessionFileError: it is missing, cannot be read, or was changed; names the file.
    """
    check_length(place, seal, advice=advice)
    try:
        content = place.read_bytes()
    except OSError as error:
        raise SessionFileError(
            f"{place} cannot be read: {error.strerror or error}; {advice}", path=place
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != seal["sha256"]:
        raise SessionFileError(
            f"{place} is damaged: its digest is {digest[:16]}..., expected "
            f"{str(seal['sha256'])[:16]}...; {advice}",
            path=place,
        )
    return content
