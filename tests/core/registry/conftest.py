"""Fake distributions: dist-info folders and faces in a folder of their own on sys.path."""

import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tersely.registry.discovery import ALLOW, DENY, STRICT
from tersely.registry.registry import Registry, load_registry

FACE = """
import tersely

tersely_api = 1


@tersely.hookimpl
def tersely_pruners():
    return [tersely.PrunerInfo(name="thin", implementation="{module}_algorithms:Thin",
                               summary="Removes what is thin.")]
"""

Install = Callable[..., Path]
Load = Callable[..., Registry]


@pytest.fixture(autouse=True)
def _default_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (ALLOW, DENY, STRICT):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path whose modules are forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    known = set(sys.modules)
    yield folder
    for name in set(sys.modules) - known:
        origin = getattr(sys.modules[name], "__file__", None)
        if origin is not None and Path(origin).is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.fixture
def install(site: Path) -> Install:
    """Install a fake distribution; without a face it gets one with the pruner ``thin``."""

    def install(
        name: str,
        *,
        version: str = "1.0",
        face: str | None = None,
        entry_points: str | None = None,
        modules: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> Path:
        place = folder or site
        # The prefix keeps a fake tersely-pruning apart from the real one, if that is installed.
        prefix = "fake_" if name.startswith("tersely") else ""
        module = prefix + name.lower().replace("-", "_")
        info = place / f"{module}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8"
        )
        if entry_points is None:
            entry_points = f"[tersely]\n{module} = {module}\n"
        (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")
        text = FACE.format(module=module) if face is None else textwrap.dedent(face)
        (place / f"{module}.py").write_text(text, encoding="utf-8")
        for other, source in (modules or {}).items():
            (place / f"{other}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        return info

    return install


@pytest.fixture
def load(site: Path) -> Load:
    """Load a registry from the fake distributions alone; keywords are environment variables."""

    def load(*paths: Path, **environ: str) -> Registry:
        return load_registry(environ=environ, path=[str(path) for path in paths or (site,)])

    return load
