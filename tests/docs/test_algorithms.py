"""The list of algorithms says what the plugins say."""

import runpy
from pathlib import Path

import tersely
from tersely.registry.kinds import KINDS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "reference" / "algorithms.md"


def test_the_page_is_what_the_descriptors_say():
    written = runpy.run_path(str(DOCS / "write_algorithms.py"))["page"]()

    assert PAGE.read_text(encoding="utf-8") == written, "run: python docs/write_algorithms.py"


def test_every_name_of_an_official_plugin_is_on_the_page():
    text = PAGE.read_text(encoding="utf-8")
    registry = tersely.registry()
    names = [
        catalog.info(name).name
        for kind in KINDS
        if kind.name != "tracer"
        for catalog in [getattr(registry, kind.catalog)]
        for name in catalog
        if catalog.record(name).distribution == kind.family
    ]

    assert len(names) > 40
    assert [name for name in names if f"| `{name}` |" not in text] == []
