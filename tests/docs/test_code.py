"""Every page does what it shows.

A page's blocks run in order in one empty folder. A block with a file name as its caption is written
to that file, `python` is executed, and each `$ tersely` line of a `console` block is run in a
process of its own, by the shell where it needs one. An `output` block after `python`, and the lines
after a command, are what must be printed; `...` stands for anything.
"""

import contextlib
import doctest
import io
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tersely

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent
CHECKER = doctest.OutputChecker()
SHELL = frozenset(";|&<>$*?`\\~")
"""What only a shell understands in a command."""


def _agrees(expected: str, printed: str) -> bool:
    if expected.strip() == "...":
        return True
    plain = ["\n".join(line.rstrip() for line in text.splitlines()) for text in (expected, printed)]
    flags = doctest.ELLIPSIS | doctest.DONT_ACCEPT_BLANKLINE
    return CHECKER.check_output(plain[0].strip() + "\n", plain[1].strip() + "\n", flags)


def _compare(where: str, expected: str, printed: str) -> None:
    assert _agrees(expected, printed), f"{where} shows\n{expected}\nbut this was printed\n{printed}"


def _run(command: str, folder: Path, fresh) -> str:
    environment = {**os.environ, "COLUMNS": "100"}
    if SHELL.isdisjoint(command):
        program, *words = shlex.split(command)
        script = str(SCRIPTS / program)
        done = fresh.run(script, *words, cwd=folder, env=environment, merged=True)
    else:
        done = subprocess.run(
            command,
            cwd=folder,
            shell=True,
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**environment, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"},
        )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}"
    return done.stdout


def _commands(block) -> list[tuple[int, str, str]]:
    """Line, command and shown output of each command of a console block."""
    found: list[tuple[int, str, str]] = []
    for number, line in enumerate(block.text.splitlines(), start=block.line):
        if line.startswith("$ "):
            found.append((number, line[2:], ""))
        elif found:
            at, command, shown = found.pop()
            found.append((at, command, shown + line + "\n"))
    return [item for item in found if item[1].startswith("tersely ")]


def _registered() -> set[str]:
    return {record.name for record in tersely.registry().plugins()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder but for the examples, where the repository has them.

    What a page registers and leaves there is removed after it.
    """
    shutil.copytree(
        ROOT / "docs" / "examples",
        tmp_path / "docs" / "examples",
        ignore=shutil.ignore_patterns(".cache", "runs", "*.partial", "__pycache__", "*.md"),
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = _registered()
    yield tmp_path
    for name in _registered() - before:
        tersely.registry().unregister(name)


def test_a_page_does_what_it_shows(page, folder, fresh):
    names = {"__name__": "page"}
    printed = ""
    for block in page.blocks:
        where = f"{page.name}:{block.line}"
        if block.caption:
            target = folder / block.caption
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            code = compile("\n" * (block.line - 1) + block.text, page.name, "exec")
            with contextlib.redirect_stdout(io.StringIO()) as captured:
                exec(code, names)
            printed = captured.getvalue()
        elif block.language == "output":
            _compare(where, block.text, printed)
        elif block.language == "console":
            for line, command, shown in _commands(block):
                _compare(f"{page.name}:{line}: {command}", shown, _run(command, folder, fresh))
