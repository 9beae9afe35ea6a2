"""Every test runs in some environment of tox, and one that needs a sibling where it is installed."""

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
OWN = ("core", "packaging", "benchmarks", "thirdparty", "downstream")
"""Folders under tests/ that have environments of their own, or run in `alone`."""

ALONE = ("granularity", "pruning", "quantization", "distillation")
"""Families of plugins whose tests run in `alone`."""


def _together() -> list[str]:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    return re.findall(r"tests/[\w/.]+", tox["testenv:py311"]["commands"])


def test_every_folder_of_tests_runs_somewhere():
    folders = {file.parent for file in (ROOT / "tests").rglob("test_*.py")}
    names = {folder.relative_to(ROOT).parts[1:3] for folder in folders}
    left_out = [
        "/".join(name)
        for name in sorted(names)
        if name[0] not in OWN
        and not (name[0] == "plugins" and name[1] in ALONE)
        and not any("/".join(("tests", *name)).startswith(path) for path in _together())
    ]
    assert left_out == []


def test_what_is_skipped_without_a_sibling_runs_where_all_are_installed():
    needing = [
        file.relative_to(ROOT).as_posix()
        for file in sorted((ROOT / "tests" / "plugins").rglob("test_*.py"))
        if 'importorskip("tersely_' in file.read_text(encoding="utf-8")
    ]
    assert needing
    assert [path for path in needing if not path.startswith(tuple(_together()))] == []
