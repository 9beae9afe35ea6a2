"""Run Python in processes of their own that need not import torch again.

A server, which has done nothing but import, makes a copy of itself (a fork) for each run: the
process is as new as one that a shell starts, but for the imports, which take longer than most jobs.
What is imported, when, and which warnings that gives, is tested with `subprocess` instead; so is how
an interpreter ends, of which only its threads and `atexit` are left here.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

SECONDS = 900
"""How long a process may take before it is ended."""

IMPORTS = ("torch._dynamo", "tersely.jobs.runner")
"""What processes need not import again."""


class Fresh:
    """A server of fresh processes.

    Args:
        seconds: how long each may take before it is ended, which is an error.
        imports: the modules that are imported before.
    """

    def __init__(self, seconds: float = SECONDS, imports: Sequence[str] = IMPORTS) -> None:
        self._server: subprocess.Popen[str] | None = None
        self.seconds = seconds
        self.imports = imports

    def run(
        self,
        *arguments: str,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        merged: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python ARGUMENTS`` and return its status and what it printed.

        Args:
            arguments: a script, ``-m`` and a module, or ``-c`` and code, with what they are given;
                ``-W error`` may stand before them.
            cwd: the folder to run in.
            env: its environment, this process' own unless given. `OMP_NUM_THREADS` is 1.
            merged: whether what it prints to stderr is among what it prints to stdout.

        Raises:
            RuntimeError: it took too long, and was ended.
        """
        environment = {**(os.environ if env is None else env), "OMP_NUM_THREADS": "1"}
        if not hasattr(os, "fork"):
            command = [sys.executable, *arguments]
            return subprocess.run(
                command,
                cwd=cwd,
                env=environment,
                timeout=self.seconds,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merged else subprocess.PIPE,
                text=True,
                check=False,
            )
        with tempfile.TemporaryDirectory() as folder:
            outputs = [Path(folder, name) for name in ("out", "out" if merged else "err")]
            request = {
                "arguments": arguments,
                "folder": str(cwd),
                "environment": environment,
                "outputs": [str(path) for path in outputs],
            }
            status = self._ask(request)
            texts = [path.read_text(encoding="utf-8") for path in outputs]
        return subprocess.CompletedProcess(arguments, status, texts[0], "" if merged else texts[1])

    def _ask(self, request: Mapping[str, Any]) -> int:
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, __file__, *self.imports],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        questions, answers = self._server.stdin, self._server.stdout
        assert questions is not None
        assert answers is not None
        ending = threading.Timer(self.seconds, self._kill)
        ending.start()
        try:
            print(json.dumps(request), file=questions, flush=True)
            answer = answers.readline()
            if not answer:
                raise RuntimeError(
                    f"{request['arguments']}: the server was ended after {self.seconds} s, or "
                    "by an error of its own, which it has printed"
                )
            return int(answer)
        except BaseException:  # whoever asks next is not to read the answer to this
            self._kill()
            with contextlib.suppress(BrokenPipeError), self._server:
                self._server = None
            raise
        finally:
            ending.cancel()

    def _kill(self) -> None:
        """End the server and the process that it waits for."""
        if self._server is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.communicate()


def serve(imports: Sequence[str]) -> None:
    """Import what is slow, and run a copy for each line of the input."""
    for module in imports:
        importlib.import_module(module)
    for line in iter(sys.stdin.readline, ""):
        process = os.fork()
        if process == 0:
            _become(**json.loads(line))
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201  # to the client


def _become(
    arguments: Sequence[str],
    folder: str,
    environment: Mapping[str, str],
    outputs: Sequence[str],
) -> NoReturn:
    left_out = _paths(os.environ)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123  # as long as the process
    os.dup2(sys.stdin.fileno(), 0)
    for descriptor, name in enumerate(outputs, start=1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    sys.path[1:] = [*_paths(environment), *(path for path in sys.path[1:] if path not in left_out)]
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # as `random` does by itself in a copy
    status = 1
    try:
        _execute(list(arguments))
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)  # noqa: T201  # as Python does
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]  # wait as the end of Python does
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError):  # closed
            stream.flush()
    os._exit(status)


def _paths(environment: Mapping[str, str]) -> list[str]:
    return [
        os.path.abspath(path)  # noqa: PTH100  # as Python does, links and all
        for path in environment.get("PYTHONPATH", "").split(os.pathsep)
        if path
    ]


def _execute(arguments: list[str]) -> None:
    while arguments[0] == "-W":
        warnings.simplefilter(arguments[1])  # type: ignore[arg-type]  # a word such as "error"
        del arguments[:2]
    if arguments[0] == "-m":
        sys.path[0] = os.getcwd()  # noqa: PTH109
        sys.argv[:] = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        sys.path[0] = ""
        sys.argv[:] = ["-c", *arguments[2:]]
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path[0] = str(Path(arguments[0]).resolve().parent)
        sys.argv[:] = arguments
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1:])
