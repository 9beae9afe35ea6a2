"""The golden cases: numbers of the reference implementation, for every suite that compares."""

import functools
import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(os.environ.get("LACONIC_GOLDEN", Path(__file__).parent / "data" / "golden"))


class Golden:
    """The golden files, each read once; ``tests/data/golden/README.md`` says what they hold."""

    @functools.cache  # noqa: B019  # one instance lives as long as the test run
    def load(self, name: str) -> dict[str, Any]:
        path = FOLDER / name
        if path.suffix == ".json":
            return json.loads(path.read_text(encoding="utf-8"))
        # Lazy: part of the suite runs where torch is not installed.
        import torch

        return torch.load(path, weights_only=True)

    def cases(self, name: str) -> list[dict[str, Any]]:
        return self.load(name)["cases"]

    @functools.cached_property
    def models(self) -> ModuleType:
        spec = importlib.util.spec_from_file_location("golden_models", FOLDER / "models.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def model(self, case: dict[str, Any]) -> Any:
        """The case's model with its stored weights."""
        model = self.models.build(case["model"], case.get("seed", 0), **case.get("model_args", {}))
        if "state_dict" in case:
            model.load_state_dict(case["state_dict"])
        return model.eval()


GOLDEN = Golden()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "golden(file, select=None): run once for each case of the file, as `case`"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("golden")
    if marker is not None:
        select = marker.kwargs.get("select", lambda case: True)
        cases = [case for case in GOLDEN.cases(*marker.args) if select(case)]
        names = [case.get("name") for case in cases]
        metafunc.parametrize("case", cases, ids=names if all(names) else None)


@pytest.fixture(scope="session")
def golden() -> Golden:
    return GOLDEN
