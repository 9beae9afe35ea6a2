"""The files of a new third-party package, filled from the templates next to this module."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from string import Template

import attrs

from tersely.registry.hookspecs import plugin_api
from tersely.registry.kinds import (
    EXPORTER,
    GRANULARITY,
    LOSS,
    PRUNER,
    QUANTIZER,
    SCHEDULE,
    Kind,
)

SCAFFOLDED = {
    kind.name: kind for kind in (PRUNER, QUANTIZER, GRANULARITY, LOSS, SCHEDULE, EXPORTER)
}
"""Name -> the kinds that there are templates for."""

_TEMPLATES = Path(__file__).with_name("templates")
_SHARED: Mapping[str, str] = {
    ".github/workflows/tests.yml": "tests.yml",
    ".gitignore": "gitignore",
    "LICENSE": "LICENSE",
    "README.md": "README.md",
    "pyproject.toml": "pyproject.toml",
    "tests/test_contract.py": "test_contract.py",
    "tox.ini": "tox.ini",
}
"""Path in the package -> the template that all kinds share."""


@attrs.frozen(kw_only=True)
class Scaffold:
    """What the templates of a new package are filled with.

    Attributes:
        name: the name users will write.
        kind: what it provides.
        year: the year of the copyright.
        author: whose package it is; None for its developers.
    """

    name: str
    kind: Kind
    year: int
    author: str | None = None

    @property
    def distribution(self) -> str:
        """The distribution's name."""
        return "-".join(["tersely", *filter(None, self.name.split("_"))])

    @property
    def package(self) -> str:
        """The import package's name."""
        return f"tersely_{self.name}"

    @property
    def object(self) -> str:
        """The name of the class or function that does the work."""
        if self.kind in (LOSS, SCHEDULE):
            return self.name
        return "".join(word.capitalize() for word in self.name.split("_"))

    def files(self) -> Mapping[str, str]:
        """Return path -> content of every file, the paths relative to the package's folder."""
        source = f"src/{self.package}"
        own = self.kind.name
        return {
            **{path: self._fill(f"package/{template}") for path, template in _SHARED.items()},
            f"{source}/__init__.py": self._fill(f"{own}/face.py"),
            f"{source}/{self.name}.py": self._fill(f"{own}/algorithm.py"),
            f"{source}/py.typed": "",
            "tests/test_numbers.py": self._fill(f"{own}/test_numbers.py"),
        }

    def _fill(self, template: str) -> str:
        author = self.author or f"The {self.distribution} developers"
        values = {
            "api": plugin_api[0],
            "author": author,
            "author_in_toml": json.dumps(author, ensure_ascii=False),
            "contract": f"{self.kind.name.capitalize()}Contract",
            "distribution": self.distribution,
            "kind": self.kind.name,
            "name": self.name,
            "object": self.object,
            "package": self.package,
            "year": self.year,
        }
        usage = Template(_text(f"{self.kind.name}/usage.yaml")).substitute(values)
        return Template(_text(template)).substitute(values, usage=usage.rstrip())


def _text(template: str) -> str:
    return (_TEMPLATES / f"{template}.template").read_text(encoding="utf-8")
