"""Measurements that survive a crash: one line of JSON each, appended and synced at once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from tersely.errors import SessionFileError
from tersely.json_value import Json
from tersely.storage.durable import make_folder, sync_folder
from tersely.storage.json_file import body_digest

FORMAT = "tersely-measurements"
VERSION = 1


class MeasurementFile:
    """An append-only file of measurements; a class, because the file stays open.

    The first line identifies what is measured; each further line is a measurement with its digest.
    An incomplete last line, as a crash leaves it, is dropped and measured again.

    Args:
        place: the file, or None to keep measurements in memory only.
        subject: name of each part of what is measured -> its digest, as plain data.

    Raises:
        SessionFileError: the file belongs to another subject, or is damaged before its last line.
    """

    def __init__(self, place: Path | None, subject: Mapping[str, str]) -> None:
        self._place = place
        self._known: dict[str, Json] = {}
        if place is None:
            return
        make_folder(place.parent)
        kept = self._read(place, subject) if place.exists() else 0
        with place.open("r+b" if place.exists() else "wb") as stream:
            stream.truncate(kept)
        if not kept:
            self._append({"format": FORMAT, "version": VERSION, "subject": dict(subject)})
            sync_folder(place.parent)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Json:
        """Return the measurement with a key, or None.

        Args:
            key: what identifies the measurement.
        """
        return self._known.get(key)

    def add(self, key: str, value: Mapping[str, Json]) -> None:
        """Append a measurement; it is on disk when this returns.

        Args:
            key: what identifies the measurement.
            value: plain data.

        Raises:
            OSError: it cannot be written.
        """
        self._known[key] = dict(value)
        if self._place is not None:
            self._append({"key": key, "value": dict(value)})

    def _append(self, data: dict[str, Json]) -> None:
        if self._place is None:
            return
        line = json.dumps({**data, "sha256": body_digest(data)[:16]}) + "\n"
        with self._place.open("ab") as stream:
            stream.write(line.encode())
            stream.flush()
            os.fsync(stream.fileno())

    def _read(self, place: Path, subject: Mapping[str, str]) -> int:
        """Read the complete lines, and return their number of bytes."""
        content = place.read_bytes()
        end = content.rfind(b"\n") + 1
        lines = list(_lines(content[:end], place))
        if not lines:
            return 0
        head = lines[0]
        if head.get("format") != FORMAT or head.get("version") != VERSION:
            raise SessionFileError(
                f"{place} is not a file of measurements that this tersely can read; {_ADVICE}",
                path=place,
            )
        before = head["subject"]
        changed = [name for name in subject if before.get(name) != subject[name]]
        if changed:
            raise SessionFileError(
                f"{place} holds measurements of something else: {', '.join(changed)} changed; "
                f"{_ADVICE}, or undo the change",
                path=place,
            )
        self._known = {line["key"]: line["value"] for line in lines[1:]}
        return end


_ADVICE = "give another folder, or remove this one"


def _lines(content: bytes, place: Path) -> Iterator[dict[str, Json]]:
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            data = json.loads(line)
            written = data.pop("sha256")
        except (ValueError, AttributeError, KeyError, TypeError):
            data, written = {}, None
        if written is None or body_digest(data)[:16] != written:
            raise SessionFileError(f"{place}:{number} is damaged; {_ADVICE}", path=place)
        yield data
