"""Legal code that the checks of options and of the process have nothing to say about."""

import dataclasses
import logging

import attrs
import pytest

from tersely.testing.option_checks import default_problem, interruption_problem, unread_problem
from tersely.testing.untouched.process_state import watched_process

SCHEMA = {"properties": {"sizes": {"default": [1]}, "rate": {"default": 2}}}


@attrs.frozen
class OfAttrs:
    sizes: list[int] = attrs.field(factory=lambda: [1])
    rate: int = 2


@dataclasses.dataclass
class OfDataclasses:
    sizes: list[int] = dataclasses.field(default_factory=lambda: [1])
    rate: int = 2


class ByLocals:
    def __init__(self, sizes=(1,), rate=2):
        self.options = dict(locals())


class Plain:
    def __init__(self, sizes=(1,), rate=2):
        self.sizes = sizes
        self.rate = rate


@pytest.mark.parametrize("kind", [OfAttrs, OfDataclasses, ByLocals, Plain])
def test_options_that_are_read_in_some_way_are_no_problem(kind):
    assert default_problem(kind, SCHEMA) == ""
    assert unread_problem(kind, SCHEMA) == ""


def test_source_that_is_no_whole_statement_is_not_read():
    made = {
        "difference": lambda student, teacher: student - teacher,
    }

    class Shown:
        TEXT = """
at the margin
"""

    assert interruption_problem(made["difference"]) == ""
    assert interruption_problem(Shown) == ""


def test_a_warning_that_is_logged_is_not_printed(monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])

    with watched_process() as found:
        logging.getLogger("plugin").warning("careful")

    assert found == []
