"""Run the tests of the core, of each plugin family and of the packages from outside, each alone.

    python tests/alone.py [NAME...] [PYTEST'S ARGUMENTS...]

The environment holds the core and no plugin. What a suite needs besides is installed into a folder
of its own, which only that suite has on its path; that nothing else is there is checked first.

With ``-n``, large suites run one after the other, each in several processes. Small ones take less
time than the start of their processes, so they run side by side, each in one.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

TESTS = Path(__file__).parent
ROOT = TESTS.parent
FAMILIES = ("granularity", "pruning", "quantization", "distillation")
OUTSIDE = {
    folder.name.removeprefix("tersely-"): folder
    for folder in sorted((TESTS / "thirdparty").iterdir())
    if (folder / "pyproject.toml").exists()
}
SUITES = {
    "core": (None, TESTS / "core"),
    **{name: (ROOT / "plugins" / name, TESTS / "plugins" / name) for name in FAMILIES},
    **{name: (folder, folder) for name, folder in OUTSIDE.items()},
    "frozen": (TESTS / "downstream" / "frozen", TESTS / "downstream"),
}
"""Name -> the project to install besides the core, and its tests."""

LARGE = ("core", "pruning", "quantization", "distillation")
"""Suites that are worth several processes."""

FOUND = """
import importlib.metadata
import importlib.util
import sys
names = {one.name for one in importlib.metadata.distributions() if one.name.startswith("tersely")}
for name in sorted(names):
    print(name)
packages = ["granularity", "pruning", "quantization", "distillation", "export"]
packages += ["integrations", "frozen", *sys.argv[1:]]
for package in [f"tersely_{name}" for name in packages]:
    if importlib.util.find_spec(package):
        print(package)
"""
NOTHING_COLLECTED = 5


def main(arguments: Sequence[str]) -> int:
    """Run the suites that are named first, or all; returns pytest's first failing status."""
    names = [*arguments]
    for place, argument in enumerate(arguments):
        if argument not in SUITES:
            names = names[:place]
            break
    options = arguments[len(names) :]
    chosen = names or [*SUITES]
    is_parallel = "-n" in options
    small = [name for name in chosen if is_parallel and name not in LARGE]
    statuses = [run(name, options) for name in chosen if name not in small]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        for status, output in pool.map(lambda name: run_quietly(name, options), small):
            print(output, flush=True)  # noqa: T201  # what pytest says
            statuses.append(status)
    if options:  # such as -k, which select in some suites only
        statuses = [0 if status == NOTHING_COLLECTED else status for status in statuses]
    return next(filter(None, statuses), 0)


def run_quietly(name: str, options: Sequence[str]) -> tuple[int, str]:
    """Run one suite in a single process; returns its status and what it has printed."""
    with tempfile.TemporaryFile("w+") as log:
        status = run(name, [*options, "-n", "0"], log=log)
        log.seek(0)
        return status, log.read()


def run(name: str, options: Sequence[str], *, log: TextIO | None = None) -> int:
    """Run one suite where nothing but its own project is installed besides the core."""
    project, tests = SUITES[name]
    with tempfile.TemporaryDirectory(prefix=f"tersely-{name}-") as site:
        if project is not None:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps"]
            # Nothing is built apart, so there is nothing to constrain, which pip refuses to ignore.
            unconstrained = {k: v for k, v in os.environ.items() if k != "PIP_BUILD_CONSTRAINT"}
            subprocess.run(
                [*pip, "--no-build-isolation", "--target", site, str(project)],
                check=True,
                env=unconstrained,
            )
        # Every process of a test imports torch, in half of the time where its bytecode is kept.
        environment = {**os.environ, "PYTHONPATH": site}
        expected = (
            ["tersely"] if project is None else ["tersely", f"tersely-{name}", f"tersely_{name}"]
        )
        found = subprocess.run(
            [sys.executable, "-c", FOUND, *OUTSIDE],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        if found != expected:
            sys.exit(f"{name} is not alone: expected {expected}, found {found}")
        print(f"\n{name}, alone: {', '.join(found)}", file=log, flush=True)  # a heading
        return subprocess.run(
            [sys.executable, "-m", "pytest", str(tests), *options],
            env=environment,
            check=False,
            stdout=log,
            stderr=log and subprocess.STDOUT,
        ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
