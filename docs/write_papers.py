"""Write the table of `plugins/papers.md` from the packages and files under `tests`.

    python docs/write_papers.py

Run it after adding a file to tests/downstream/papers; tests/docs compares the page with it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import tersely
from tersely.registry.kinds import KINDS

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("plugins") / "papers.md"
PAPERS = ROOT / "tests" / "downstream" / "papers"
PACKAGES = ROOT / "tests" / "thirdparty"
HOOKS = {kind.hook: kind.name for kind in KINDS}
START, END = "<!-- table -->\n", "<!-- end of table -->\n"


def page() -> str:
    """Return the page with an updated table."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    kinds = list(HOOKS.values())
    rows = sorted(set(_rows()), key=lambda row: (kinds.index(row[1]), row))
    lines = ["| paper | kind | name | file | lines |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "".join((before, START, *(f"{line}\n" for line in lines), END, after))


def _rows() -> Iterator[tuple[str, ...]]:
    registry = tersely.registry()
    known = {record.name for record in registry.plugins()}
    files = sorted(PAPERS.glob("*.py"))
    new = [registry.register_file(file) for file in files if file.name not in known]
    for file in files:
        (record,) = (one for one in registry.plugins() if one.name == file.name)
        for kind, short in record.provides:
            (catalog,) = (one.catalog for one in KINDS if one.name == kind)
            yield _row(kind, getattr(registry, catalog).info(f"{file.name}:{short}"), file)
    for name in new:
        registry.unregister(name)
    for folder in sorted(PACKAGES.glob("tersely-*")):
        sys.path.insert(0, str(folder))
        face = import_module(folder.name.replace("-", "_"))
        for hook, kind in HOOKS.items():
            for info in getattr(face, hook, list)():
                module = info.implementation.partition(":")[0].replace(".", "/")
                if info.paper:
                    yield _row(kind, info, folder / f"{module}.py")


def _row(kind: str, info: tersely.PrunerInfo, file: Path) -> tuple[str, ...]:
    count = len(file.read_text(encoding="utf-8").splitlines())
    place = file.relative_to(ROOT / "tests")
    return info.paper or "", kind, f"`{info.name}`", f"`{place.as_posix()}`", str(count)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
