"""``TERSELY_TRACE``: what is counted, and that traced algorithms stay what they are."""

import copy
import pickle
import subprocess
import sys

import pytest

import tersely
from tersely.registry import trace
from tersely.registry.registry import Registry


class Thin:
    """Ranks in one line."""

    def importance(self, target):
        return [target]

    def simulate(self, value):
        return value

    def _secret(self):
        return 1


class FollowsTraining:
    """Stands for the ability of that name, which needs torch."""


class Following(FollowsTraining):
    decay, start_step, freeze_step = 0.9, 0, None

    def choose(self, low, high, target):
        return low


def linear(progress):
    """Return the progress."""
    return progress


class Face:
    @tersely.hookimpl
    def tersely_pruners(self):
        return [tersely.PrunerInfo(name="thin", implementation=f"{__name__}:Thin")]

    @tersely.hookimpl
    def tersely_quantizers(self):
        return [tersely.QuantizerInfo(name="following", implementation=f"{__name__}:Following")]

    @tersely.hookimpl
    def tersely_schedules(self):
        return [tersely.ScheduleInfo(name="linear", implementation=f"{__name__}:linear")]

    @tersely.hookimpl
    def tersely_finalized(self, session):
        """Watch."""


@pytest.fixture
def registry():
    registry = Registry()
    registry.register(Face(), name="acme")
    return registry


@pytest.fixture
def calls(monkeypatch):
    """Trace, and return how often was asked for what."""
    monkeypatch.setenv(trace.TRACE, "1")
    monkeypatch.setattr(trace, "_calls", {})
    monkeypatch.setattr(trace.atexit, "register", lambda function: function)
    trace._traced_once.cache_clear()
    yield lambda: {call: count for call, (count, _) in trace._calls.items()}
    trace._traced_once.cache_clear()


def test_methods_are_counted_by_plugin_and_kind(registry, calls):
    thin = registry.pruners["thin"]()

    assert [thin.importance(1), thin.importance(2)] == [[1], [2]]
    assert calls() == {
        ("acme:thin", "pruner", "import"): 1,
        ("acme:thin", "pruner", "importance"): 2,
    }


def test_functions_are_counted(registry, calls):
    assert registry.schedules["linear"](0.5) == 0.5
    assert calls()["acme:linear", "schedule", "call"] == 1


def test_observing_hooks_are_counted(registry, calls):
    registry.observe("tersely_finalized", session=None)

    assert calls() == {("acme", "hook", "tersely_finalized"): 1}


@pytest.mark.parametrize("name", ["simulate", "_secret"])
def test_what_runs_in_forward_and_what_is_private_is_left_alone(registry, calls, name):
    assert getattr(registry.pruners["thin"], name) is getattr(Thin, name)


def test_choosing_is_left_alone_where_it_runs_in_forward(registry, calls):
    assert registry.quantizers["following"].choose is Following.choose


def test_a_traced_class_is_one_class_with_its_name_and_its_bases(registry, calls):
    first, second = registry.quantizers["following"], registry.quantizers["following"]

    assert first is second
    assert first.__name__ == "Following"
    assert issubclass(first, FollowsTraining)


def test_traced_objects_are_copied_and_pickled_as_what_they_stand_for(registry, calls):
    thin = registry.pruners["thin"]()

    assert type(copy.deepcopy(thin)) is Thin
    assert type(pickle.loads(pickle.dumps(thin))) is Thin


def test_without_the_variable_the_implementation_is_the_plugins_own(registry, monkeypatch):
    monkeypatch.delenv(trace.TRACE, raising=False)

    assert registry.pruners["thin"] is Thin


def test_the_table_begins_with_what_took_longest(calls):
    trace.note("acme:thin", "pruner", "importance", seconds=0.25)
    trace.note("acme:thin", "pruner", "importance", seconds=0.25)
    trace.note("acme 1.0", "face", "load", seconds=1)

    assert [line.split() for line in trace.trace_lines() if "─" not in line] == [
        ["plugin", "kind", "call", "times", "seconds"],
        ["acme", "1.0", "face", "load", "1", "1.0000"],
        ["acme:thin", "pruner", "importance", "2", "0.5000"],
    ]


def test_the_table_is_printed_when_the_process_ends():
    code = (
        "from tersely.registry.trace import note; note('acme 1.0', 'face', 'load', seconds=1);"
        "print('done')"
    )

    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert ran.stdout == "done\n"
    assert ran.stderr.startswith("calls of plugins (TERSELY_TRACE)\n plugin")
    assert ran.stderr.endswith(" acme 1.0   face   load       1    1.0000\n")


class Unhashable:
    __hash__ = None

    def __call__(self, value):
        return value + 1


class Guarded:
    def __init_subclass__(cls, **options):
        raise ValueError("no subclass")

    def importance(self, target):
        return target


def test_a_callable_without_a_hash_is_counted_too(calls):
    assert trace.traced(Unhashable(), "notebook:unhashable", "loss")(2) == 3
    assert calls() == {("notebook:unhashable", "loss", "call"): 1}


def test_a_class_that_refuses_subclasses_stays_as_it_is():
    assert trace.traced(Guarded, "notebook:guarded", "pruner") is Guarded
