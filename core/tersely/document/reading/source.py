"""From a path or a Python object to a document: bytes, encodings and missing files."""

from __future__ import annotations

import codecs
import contextlib
import gc
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tersely.document.reading.json_text import read_json
from tersely.document.reading.positions import Document
from tersely.document.reading.python_data import read_python
from tersely.document.reading.yaml_text import read_yaml
from tersely.errors import ConfigError, Problem
from tersely.json_value import Json
from tersely.text import did_you_mean

_LONG = 100_000  # characters

_WIDE_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_document(
    source: str | os.PathLike[str] | Mapping[str, Json] | Sequence[Json],
) -> Document:
    """Read a document from a file or from Python data.

    Args:
        source: the path of a YAML or JSON file (JSON when it ends in ``.json``), or the data.

    Returns:
        The data with the place of every key and value, and with mistakes after which reading
        could continue among its findings.

    Raises:
        ConfigError: the file cannot be read, or is not one document.
    """
    if isinstance(source, (str, os.PathLike)):
        return read_file(source)
    return read_python(source)


def read_file(path: str | os.PathLike[str]) -> Document:
    """Read a YAML or JSON file.

    Args:
        path: the file; JSON when it ends in ``.json``, YAML otherwise.

    Raises:
        ConfigError: the file is missing, a folder, not readable, not text, code, or not one
            document.
    """
    name = os.fspath(path)
    text = read_text(name)
    if name.lower().endswith(".py"):
        hint = "write its data to a file with json.dump, or give the data to tersely.load_recipe"
        raise _refusal(name, "this is Python code, expected a YAML or JSON file", hint)
    read = read_json if name.lower().endswith(".json") else read_yaml
    with uncollected(len(text)):
        return read(text, source=name)


def read_text(path: str | os.PathLike[str]) -> str:
    """Read the text of a file, whatever Unicode encoding its byte order mark names.

    Args:
        path: the file.

    Returns:
        The text, with the line ends of Unix.

    Raises:
        ConfigError: the file is missing, a folder, not readable, or not text.
    """
    name = os.fspath(path)
    return _decode(_read_bytes(name), name)


@contextlib.contextmanager
def uncollected(characters: int) -> Iterator[None]:
    """Let Python look for no garbage inside the block, which makes none of a document.

    A long document is hundreds of thousands of small objects; looking for garbage among them again
    and again takes two thirds of the time.

    Args:
        characters: the document's length; nothing is done for a short one.
    """
    if characters < _LONG or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _read_bytes(name: str) -> bytes:
    try:
        mode = Path(name).stat().st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            return Path(name).read_bytes()
    except FileNotFoundError as error:
        raise _refusal(name, "there is no such file", _near_files(name)) from error
    except IsADirectoryError as error:
        raise _refusal(name, "this is a folder, expected a file", _documents_in(name)) from error
    except OSError as error:
        reason = (error.strerror or "unknown error").lower()
        raise _refusal(name, f"the file cannot be read: {reason}") from error
    except ValueError as error:  # versions of Python word it differently
        raise _refusal(name, "this is not a file name: it has a null character") from error
    # Reading it could wait for ever, or never end.
    raise _refusal(name, "this is a pipe or a device, expected a file")


def _decode(data: bytes, name: str) -> str:
    encoding = next((code for mark, code in _WIDE_MARKS.items() if data.startswith(mark)), "utf-8")
    # The byte order mark is not part of the text and must not shift the columns of the first line.
    start = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    try:
        text = data[start:].decode(encoding)
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode(encoding, errors="replace")
        problem = Problem(
            "",
            f"the byte 0x{error.object[error.start]:02x} is not {encoding.upper()} text",
            "save the file as UTF-8",
            before.count("\n") + 1,
            len(before) - before.rfind("\n"),
        )
        raise ConfigError([problem], source=name) from error
    return text.replace("\r\n", "\n")


def _near_files(name: str) -> str | None:
    folder = Path(name).parent
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.is_file()]
    except OSError:
        return f"there is no folder {str(folder)!r} either"
    return did_you_mean(Path(name).name, sorted(names))


def _documents_in(name: str) -> str | None:
    suffixes = (".yaml", ".yml", ".json")
    try:
        names = sorted(entry.name for entry in os.scandir(name) if entry.name.endswith(suffixes))
    except OSError:
        return None
    return f"it holds {', '.join(names[:3])}" if names else None


def _refusal(name: str, message: str, hint: str | None = None) -> ConfigError:
    return ConfigError([Problem("", message, hint)], source=name)
