"""The frozen package, as it was installed, or registered by hand in a working copy."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tersely

FROZEN = Path(__file__).parent / "frozen"


@pytest.fixture(scope="session", autouse=True)
def _frozen_package() -> Iterator[None]:
    registry = tersely.registry()
    if any(record.distribution == "tersely-frozen" for record in registry.plugins()):
        yield
        return
    sys.path.append(str(FROZEN))
    import tersely_frozen

    registry.register(tersely_frozen, name="tersely-frozen")
    yield
    registry.unregister("tersely-frozen")
    sys.path.remove(str(FROZEN))


@pytest.fixture(scope="session")
def papers() -> Iterator[None]:
    """The algorithms of papers, each a plugin of one file."""
    files = sorted((Path(__file__).parent / "papers").glob("*.py"))
    names = [tersely.registry().register_file(file) for file in files]
    yield
    for name in names:
        tersely.registry().unregister(name)
