"""Write `plugins/catches.md`: the mistakes that the contract kit finds, by kind and check.

    python docs/write_catches.py

Run it after adding a row to tests/expected/found_by.py; tests/docs compares the page with it.
"""

from __future__ import annotations

import inspect
import re
import runpy
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tersely.testing import Contract
from tersely.testing.by_kind import CONTRACTS

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("plugins") / "catches.md"
TABLE = ROOT / "tests" / "expected" / "found_by.py"
HEAD = """# What the contract checks find

[The contract](testing.md#what-is-checked) was tried on {count} plugins with one mistake each.
These are the checks that find them; a mistake is named like its class or function in
`tests/core/testing/samples`. Checks that are not in a table have found mistakes as well, in
addition to the check that names each mistake best.
"""


def page() -> str:
    """Return the page."""
    rows = runpy.run_path(str(TABLE))["FOUND_BY"]
    count = len({sample for _, sample, _ in rows})
    return HEAD.format(count=count) + "".join(_section(kind, rows) for kind in CONTRACTS)


def _section(kind: str, rows: tuple[tuple[str, str, str], ...]) -> str:
    found: dict[str, list[str]] = defaultdict(list)
    for row_kind, sample, check in rows:
        if row_kind == kind:
            found[check].append(_words(sample))
    lines = [
        f"\n## {_article(kind)}\n",
        "| check | what it says | mistakes |",
        "| --- | --- | --- |",
    ]
    lines += _lines(CONTRACTS[kind], found)
    return "\n".join(lines) + "\n"


def _lines(contract: type[Contract], found: dict[str, list[str]]) -> Iterator[str]:
    for check, mistakes in sorted(found.items()):
        title = (inspect.getdoc(getattr(contract, check)) or "").partition("\n")[0].rstrip(".")
        yield f"| `{check}` | {title} | {', '.join(sorted(mistakes))} |"


def _article(kind: str) -> str:
    return f"{'An' if kind[0] in 'aeiou' else 'A'} {kind}"


def _words(sample: str) -> str:
    name = sample.partition(":")[2]
    return re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", name).replace("_", " ").lower()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
