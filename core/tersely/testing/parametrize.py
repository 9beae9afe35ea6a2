"""One pytest test for each check of a contract, with expected failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tersely.testing.contract import Contract, check_names

if TYPE_CHECKING:
    import pytest


def parametrize(
    *contracts: Contract, expected_failures: Mapping[str, str] | None = None
) -> pytest.MarkDecorator:
    """Parametrize a test over the checks of contracts; the test calls its ``check`` argument.

    Args:
        contracts: contracts of objects, such as ``PrunerContract("my_pruner")``.
        expected_failures: name of a check, as in ``check_compile``, or of one object's check, as in
            ``my_pruner:check_compile`` -> why it fails. Such a test fails when the check passes.

    Returns:
        A decorator for the test.

    Raises:
        ValueError: an expected failure names no check.
    """
    import pytest  # imported here because the functions work without pytest

    expected = dict(expected_failures or {})
    used: set[str] = set()
    params = []
    for contract in contracts:
        for name in check_names(type(contract)):
            keys = [key for key in (f"{contract.name}:{name}", name) if key in expected]
            used.update(keys)
            marks = [pytest.mark.xfail(reason=expected[keys[0]], strict=True)] if keys else []
            check: Callable[[], None] = getattr(contract, name)
            params.append(pytest.param(check, id=f"{contract.name}-{name}", marks=marks))
    unknown = sorted(expected.keys() - used)
    if unknown:
        known = sorted({name for each in contracts for name in check_names(type(each))})
        raise ValueError(
            f"expected_failures names unknown checks: {', '.join(unknown)}; known: "
            f"{', '.join(known)}"
        )
    return pytest.mark.parametrize("check", params)
