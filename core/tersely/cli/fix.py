"""Fixes files: writes the one right answer to each mistake that has one."""

from __future__ import annotations

import codecs
from pathlib import Path

from tersely.cli.problems import Checked
from tersely.cli.writing import write_quietly
from tersely.document.messages.fixing import fix_text
from tersely.document.reading.json_text import read_json
from tersely.document.reading.source import read_text
from tersely.document.reading.yaml_text import read_yaml
from tersely.document.schemas.schema import Kind
from tersely.document.validate import find_problems
from tersely.errors import Problem

_ROUNDS = 10  # a mended key may show what is wrong below it


def fix_file(checked: Checked) -> tuple[Problem, ...]:
    """Fix the mistakes of a file that have one right answer, and return them.

    Comments, order and layout stay; the file is written whole or not at all.

    Args:
        checked: the file and what is wrong with it.
    """
    if checked.kind is None or not any(problem.fix for problem in checked.problems):
        return ()
    text, data = read_text(checked.file), Path(checked.file).read_bytes()
    if data.count(b"\r\n") not in (0, data.count(b"\n")):
        return ()  # line ends of two kinds, of which one would be lost
    mended, done = _mend(text, checked, checked.kind)
    if mended == text:
        return ()
    encoded = mended.replace("\n", "\r\n").encode() if b"\r\n" in data else mended.encode()
    if data.startswith(codecs.BOM_UTF8):
        encoded = codecs.BOM_UTF8 + encoded
    write_quietly(checked.file, encoded)
    return done


def _mend(text: str, checked: Checked, kind: Kind) -> tuple[str, tuple[Problem, ...]]:
    is_json = checked.file.lower().endswith(".json")
    read = read_json if is_json else read_yaml
    done: list[Problem] = []
    problems = checked.problems
    for _ in range(_ROUNDS):
        fixes = [problem.fix for problem in problems if problem.fix is not None]
        text, made = fix_text(text, fixes, is_json=is_json)
        if not made:
            break
        done += [problem for problem in problems if problem.fix in made]
        problems = find_problems(read(text), kind)
    return text, tuple(done)
