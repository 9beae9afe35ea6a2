"""Saved sessions: a JSON file that names a content-hashed safetensors file, replaced last.

A crash at any byte leaves the session that was there before or the new one, never a mixture. A bool
tensor, such as a mask, is stored one bit an element, with its shape in the JSON file.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import attrs
from torch import Tensor

from tersely.errors import SessionFileError
from tersely.json_value import Json
from tersely.log import logger
from tersely.storage.durable import PARTIAL, write_whole
from tersely.storage.json_file import body_digest, check_shape, read_json_file
from tersely.storage.packed import PackedTensors
from tersely.storage.seal import SEAL, read_sealed, seal_of
from tersely.storage.tensor_file import tensors_in, write_tensors

FORMAT = "tersely-session"
VERSION = 1
INDEX = "session.json"

_ADVICE = "restore it from a copy or save the session again"

_SHAPE: Json = {
    "properties": {
        "state": {
            "allOf": [
                SEAL,
                {
                    "required": ["file"],
                    # No name that leads out of the folder.
                    "properties": {
                        "file": {
                            "type": "string",
                            "pattern": "^state-[0-9a-f]{16}[.]safetensors$",
                        },
                        "bits": {
                            "type": "object",
                            "additionalProperties": {
                                "type": "array",
                                "items": {"type": "integer", "minimum": 0},
                            },
                        },
                    },
                },
            ]
        },
    }
}

_SECTIONS = {"data": dict, "plan": dict, "recipe": dict, "plugins": list, "state": dict}


@attrs.frozen(kw_only=True, eq=False)
class StoredSession:
    """What a saved session holds, checked against its digests.

    Attributes:
        tensors: name -> tensor on the CPU; the caller owns them. A mask is unpacked each time
            that it is asked for.
        data: everything else of the session's state.
        plan: the plan as `Plan.to_dict` gave it.
        recipe: the recipe's document.
        plugins: one mapping for each plugin that took part, with its version.
    """

    tensors: Mapping[str, Tensor]
    data: dict[str, Json]
    plan: dict[str, Json]
    recipe: dict[str, Json]
    plugins: list[dict[str, Json]]


def save_session(
    directory: str | os.PathLike[str],
    *,
    tensors: Mapping[str, Tensor],
    data: Mapping[str, Json],
    plan: Mapping[str, Json],
    recipe: Mapping[str, Json],
    plugins: Sequence[Mapping[str, Json]],
) -> None:
    """Write a session; a crash at any moment leaves the session saved before, or this one.

    Args:
        directory: the session's folder; made when missing. Files of others in it are left alone.
        tensors: the session's tensors.
        data: the rest of its state, JSON data.
        plan: the plan, JSON data.
        recipe: the recipe's document.
        plugins: the plugins that took part, with their versions.

    Raises:
        SessionFileError: the folder cannot be written, or a tensor or value cannot be stored.
    """
    folder = Path(directory)
    index = folder / INDEX
    try:
        packed = PackedTensors.of(tensors)
        place, digest = write_tensors(folder / "state", packed.stored, rename=_hashed_name)
        body = {
            "data": data,
            "plan": plan,
            "recipe": recipe,
            "plugins": plugins,
            "state": {
                "file": place.name,
                **seal_of(place, digest=digest),
                "bits": packed.shapes,
            },
        }
        head = {"format": FORMAT, "version": VERSION, "tersely": _tersely_version()}
        document = {**head, "sha256": body_digest(body), **body}
        write_whole(index, json.dumps(document, indent=1) + "\n")
    except (OSError, TypeError) as error:
        hint = "; free some space or choose a folder that can be written"
        reason = f"{error.strerror or error}{hint}" if isinstance(error, OSError) else error
        raise SessionFileError(
            f"{folder}: the session was not saved: {reason}; what was there before is untouched",
            path=folder,
        ) from error
    _remove_stale(folder, keep=place.name)


def read_session(directory: str | os.PathLike[str]) -> StoredSession:
    """Read a saved session and check every byte of it.

    Args:
        directory: the folder that `save_session` wrote.

    Returns:
        What was saved.

    Raises:
        SessionFileError: there is no session, or it is damaged, incomplete or of a newer format;
            each has a text of its own.
    """
    folder = Path(directory)
    document = _read_index(folder)
    while True:
        try:
            tensors = _read_state(folder, document["state"])
            break
        except SessionFileError:
            # A save that ended in between has removed the tensors of the session before it.
            newer = _read_index(folder)
            if newer["state"] == document["state"]:
                raise
            document = newer
    return StoredSession(
        tensors=tensors,
        data=document["data"],
        plan=document["plan"],
        recipe=document["recipe"],
        plugins=document["plugins"],
    )


def read_session_data(directory: str | os.PathLike[str]) -> dict[str, Json]:
    """Read what a saved session holds besides tensors, without reading those.

    Args:
        directory: the folder that `save_session` wrote.

    Raises:
        SessionFileError: as for `read_session`.
    """
    data: dict[str, Json] = _read_index(Path(directory))["data"]
    return data


def _read_index(folder: Path) -> dict[str, Json]:
    index = folder / INDEX
    try:
        document = read_json_file(index, advice=_ADVICE)
    except FileNotFoundError as error:
        raise SessionFileError(_absence(folder), path=folder) from error
    except NotADirectoryError as error:
        raise SessionFileError(
            f"{folder} is a file; expected the folder that session.save() wrote", path=folder
        ) from error
    except OSError as error:
        if isinstance(error, SessionFileError):
            raise
        raise SessionFileError(
            f"{index} cannot be read: {error.strerror or error}", path=index
        ) from error
    _check_head(index, document)
    _check_body(index, document)
    return dict(document)


def _check_head(index: Path, document: Json) -> None:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise SessionFileError(
            f"{index} is not a saved session: it has no format {FORMAT!r}; give the folder that "
            "session.save() wrote",
            path=index,
        )
    found = document.get("version")
    if found != VERSION:
        raise SessionFileError(
            f"{index} has session format {found!r}, written by tersely "
            f"{document.get('tersely', 'of an unknown version')}; this tersely "
            f"{_tersely_version()} reads format {VERSION}; install the version that wrote it",
            path=index,
        )


def _check_body(index: Path, document: dict[str, Json]) -> None:
    for name, kind in _SECTIONS.items():
        if not isinstance(document.get(name), kind):
            found = type(document[name]).__name__ if name in document else "nothing"
            raise SessionFileError(
                f"{index} is incomplete: {name!r} holds {found}, expected a {kind.__name__}; "
                "restore it from a copy or save the session again",
                path=index,
            )
    body = {name: document[name] for name in _SECTIONS}
    if document.get("sha256") != body_digest(body):
        raise SessionFileError(
            f"{index} was changed after it was saved: its digest does not fit its content; "
            "restore it from a copy or save the session again",
            path=index,
        )
    check_shape(document, _SHAPE, place=index, advice=_ADVICE)


def _read_state(folder: Path, state: dict[str, Json]) -> PackedTensors:
    place = folder / str(state["file"])
    if not place.exists():
        raise SessionFileError(
            f"{place} is missing, but {INDEX} names it; copy the whole folder, or save the session "
            "again",
            path=place,
        )
    content = read_sealed(place, state, advice=_ADVICE)
    try:
        tensors = tensors_in(content)
    except ValueError as error:
        raise SessionFileError(
            f"{place} is not a safetensors file although its digest fits ({error}); update "
            "safetensors, or save the session again",
            path=place,
        ) from error
    try:
        return PackedTensors(tensors, state.get("bits", {}))
    except ValueError as error:
        raise SessionFileError(
            f"{folder / INDEX} is damaged: state.bits does not fit {place}: {error}; {_ADVICE}",
            path=place,
        ) from error


def _absence(folder: Path) -> str:
    if not folder.exists():
        return f"{folder} does not exist; give the folder that session.save() wrote"
    if any(folder.glob("state-*.safetensors")) or any(folder.glob(f".*{PARTIAL}")):
        return (
            f"{folder} has no {INDEX}: its first save was interrupted, so nothing was saved yet; "
            "save the session again"
        )
    return (
        f"{folder} holds no saved session: it has no {INDEX}; give the folder that "
        "session.save() wrote"
    )


def _hashed_name(path: Path, digest: str) -> Path:
    return path.with_name(f"state-{digest[:16]}.safetensors")


def _remove_stale(folder: Path, *, keep: str) -> None:
    # The new session is in force already, so a file that cannot be removed only takes space.
    stale = [path for path in folder.glob("state-*.safetensors") if path.name != keep]
    for path in sorted([*stale, *folder.glob(f".state.*{PARTIAL}"), *folder.glob(f".{INDEX}.*")]):
        try:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        except OSError as error:
            logger(__name__).warning("stale_file_kept", path=str(path), reason=error.strerror)


def _tersely_version() -> str:
    try:
        return version("tersely")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+unknown"
