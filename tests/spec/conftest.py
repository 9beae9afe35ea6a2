"""Runs the cases of the specification: ``@pytest.mark.spec("family")`` gives a test each of them."""

import ast
import functools
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tersely.document.schemas.spec import spec_directory

Case = dict[str, Any]


@functools.cache
def load_family(family: str) -> dict[str, Any]:
    text = (spec_directory() / "cases" / f"{family}.json").read_text(encoding="utf-8")
    return json.loads(text)


def families() -> list[str]:
    return sorted(path.stem for path in (spec_directory() / "cases").glob("*.json"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "spec(family, **where): run once, as `case`, for each case of the family; has=key asks for "
        "the key in `given`, expects=key in `expect`, any other key=value for that value in "
        "`given`",
    )


def is_meant(case: Case, where: dict[str, Any]) -> bool:
    given, expect = case["given"], case["expect"]
    tests = {"has": lambda key: key in given, "expects": lambda key: key in expect}
    return all(
        tests[word](value) if word in tests else given.get(word) == value
        for word, value in where.items()
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("spec")
    if marker is None:
        return
    cases = [case for case in load_family(*marker.args)["cases"] if is_meant(case, marker.kwargs)]
    metafunc.parametrize("case", cases, ids=[case["name"] for case in cases])


@pytest.fixture(scope="session")
def all_families() -> dict[str, dict[str, Any]]:
    return {family: load_family(family) for family in families()}


@pytest.fixture(scope="session")
def is_run():
    """Tell whether some runner's marker asks for a case."""
    marks = []
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.spec":
                where = {one.arg: ast.literal_eval(one.value) for one in node.keywords}
                marks.append((ast.literal_eval(node.args[0]), where))

    def check(family: str, case: Case) -> bool:
        return any(family == name and is_meant(case, where) for name, where in marks)

    return check


@pytest.fixture
def own_algorithms(provide):
    """Register what cases use besides installed algorithms; ``scripted`` keeps what it is told."""
    import torch

    import tersely
    from tersely.contracts import OrdersInputs, RegrowsFromZero

    class Magnitude:
        def importance(self, target):
            return target.tensor.abs()

    class OddInputsLast(Magnitude, OrdersInputs):
        def input_order(self, target):
            inputs = torch.arange(target.tensor.shape[target.plan.input_dim])
            return torch.cat([inputs[::2], inputs[1::2]])

    class Scripted(RegrowsFromZero):
        kept = None

        def importance(self, target):
            return Scripted.kept.to(target.tensor)

    made = {
        "magnitude_of_all": (Magnitude, "global"),
        "scripted": (Scripted, "target"),
        "odd_inputs_last": (OddInputsLast, "target"),
    }
    infos = (
        tersely.PrunerInfo(name=name, implementation=f"spec_algorithms:{name}", default_scope=scope)
        for name, (_, scope) in made.items()
    )
    with provide("spec_algorithms", *infos, **{name: cls for name, (cls, _) in made.items()}):
        yield SimpleNamespace(Scripted=Scripted)


@pytest.fixture
def own_losses(provide):
    """Register what cases of distillation use besides installed losses."""
    import torch

    import tersely
    from tersely.contracts import StatefulLoss

    def product_of_both(student, teacher):
        mine, theirs = (one.sum() * other.sum() for one, other in (student, teacher))
        return (mine - theirs).square()

    class SinceLast(StatefulLoss):
        def build(self, student, teacher):
            self.factor = torch.nn.Parameter(torch.ones(()))
            self.register_buffer("last", torch.zeros(student))

        def forward(self, student, teacher):
            found = (student * self.factor - self.last).square().mean()
            self.last.copy_(student.detach())
            return found

    infos = (
        tersely.LossInfo(
            name="product_of_both", implementation="spec_losses:product_of_both", targets=2
        ),
        tersely.LossInfo(
            name="since_last", implementation="spec_losses:SinceLast", needs="nothing"
        ),
    )
    with provide("spec_losses", *infos, product_of_both=product_of_both, SinceLast=SinceLast):
        yield


@pytest.fixture(scope="session")
def models() -> ModuleType:
    """What builds the models of the cases; imports torch."""
    path = Path(__file__).with_name("models.py")
    spec = importlib.util.spec_from_file_location("spec_models", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def assert_mentions():
    """Check that each expected group of words belongs to a problem of its own."""

    def check(problems: Iterable[str], expected: Iterable[list[str]]) -> None:
        remaining = list(problems)
        for words in expected:
            found = [text for text in remaining if all(word in text for word in words)]
            assert found, f"no problem mentions {words}: {remaining}"
            remaining.remove(found[0])
        assert not remaining, f"unexpected problems: {remaining}"

    return check
