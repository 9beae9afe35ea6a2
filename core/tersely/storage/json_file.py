"""JSON files that tersely wrote, read without trust: complete, valid and unchanged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from tersely.document.path import spell_path
from tersely.document.schemas.schema import offline_validator
from tersely.errors import SessionFileError
from tersely.json_value import Json

_LONGEST = 200


def read_json_file(place: Path, *, advice: str) -> Json:
    """Read a JSON file.

    Args:
        place: the file.
        advice: what to do when it is damaged, as a command.

    Raises:
        SessionFileError: it is not a regular file or not complete JSON.
        OSError: it cannot be read.
    """
    if place.exists() and not place.is_file():
        found = "a folder" if place.is_dir() else "a device or a pipe"
        raise SessionFileError(f"{place} is {found}, expected a file; {advice}", path=place)
    try:
        return json.loads(place.read_bytes().decode())
    except UnicodeDecodeError as error:
        raise SessionFileError(
            f"{place} is damaged: byte {error.start} is not UTF-8; {advice}", path=place
        ) from error
    except (ValueError, RecursionError) as error:
        raise SessionFileError(
            f"{place} is damaged: it is not complete JSON ({error}); {advice}", path=place
        ) from error


def check_shape(data: Json, schema: Mapping[str, Json], *, place: Path, advice: str) -> None:
    """Check that JSON data has every part that its reader will take, of the right type.

    Args:
        data: what the file holds.
        schema: a JSON Schema.
        place: the file.
        advice: what to do when it is damaged, as a command.

    Raises:
        SessionFileError: something is missing or wrong; names the file and the key.
    """
    for error in offline_validator(schema, has_whole_floats=False).iter_errors(data):
        path = spell_path(tuple(error.absolute_path))
        message = error.message
        if len(message) > _LONGEST:
            message = f"{message[: _LONGEST // 2]}...{message[-_LONGEST // 2 :]}"
        raise SessionFileError(
            f"{place} is damaged: {path and path + ': '}{message}; {advice}", path=place
        )


def body_digest(body: Mapping[str, Json]) -> str:
    """Return the SHA-256 of JSON data, whatever the order of its keys.

    Args:
        body: what JSON can hold.
    """
    # Through JSON once, so that a number as a key is the string that a reader will see.
    canonical = json.dumps(json.loads(json.dumps(body)), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def check_digest(data: Mapping[str, Json], *, place: Path, advice: str) -> None:
    """Check the digest that a file holds of all its other keys, under ``sha256``.

    Args:
        data: what the file holds.
        place: the file.
        advice: what to do when it was changed, as a command.

    Raises:
        SessionFileError: the digest does not fit.
    """
    body = {key: value for key, value in data.items() if key != "sha256"}
    if data.get("sha256") != body_digest(body):
        raise SessionFileError(
            f"{place} was changed after it was written: its digest does not fit its content; "
            f"{advice}",
            path=place,
        )


def with_digest(body: Mapping[str, Json]) -> dict[str, Json]:
    """Return JSON data with its digest under ``sha256``, as `check_digest` wants it.

    Args:
        body: what JSON can hold.
    """
    return {**body, "sha256": body_digest(body)}
