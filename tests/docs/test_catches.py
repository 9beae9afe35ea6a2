"""The page of what the contract kit catches says what the tests try."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_what_the_table_says():
    written = runpy.run_path(str(DOCS / "write_catches.py"))["page"]()
    page = (DOCS / "plugins" / "catches.md").read_text(encoding="utf-8")

    assert page == written, "run: python docs/write_catches.py"
