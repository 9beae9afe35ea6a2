"""What errors carry beside their text."""

import copy
import pickle

import pytest

import tersely
from tersely.errors import (
    AttachError,
    BrokenPluginError,
    CalibrationError,
    ConfigError,
    ExportError,
    PlacedError,
    PlanError,
    PluginApiError,
    PluginConflictError,
    PluginError,
    Problem,
    Refusal,
    SessionError,
    SessionFileError,
    UnknownPluginError,
)
from tersely.reporting.report import read_report

PLACED = (AttachError, CalibrationError, PlanError, SessionError)
PLUGIN = (
    BrokenPluginError,
    PluginApiError,
    PluginConflictError,
    PluginError,
    UnknownPluginError,
)


def copies(error):
    return (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error)))


@pytest.mark.parametrize("kind", PLACED)
def test_an_error_about_a_target_carries_where_it_is(kind) -> None:
    error = kind("fc.weight: no", target="fc.weight", path="pruning", algorithm="l1_norm")

    for each in (error, *copies(error)):
        assert type(each) is kind
        assert isinstance(each, PlacedError)
        assert str(each) == "fc.weight: no"
        assert (each.target, each.path, each.algorithm) == ("fc.weight", "pruning", "l1_norm")


@pytest.mark.parametrize("kind", PLACED)
def test_what_an_error_does_not_know_is_none(kind) -> None:
    error = kind("something")

    assert (error.target, error.path, error.algorithm) == (None, None, None)


@pytest.mark.parametrize("kind", PLUGIN)
def test_an_error_about_a_plugin_carries_its_name_and_distribution(kind) -> None:
    error = kind("it is broken", plugin="lost", distribution="lost-plugin", target="fc.weight")

    for each in (error, *copies(error)):
        assert type(each) is kind
        assert str(each) == "it is broken"
        assert (each.plugin, each.distribution) == ("lost", "lost-plugin")
        assert each.target == "fc.weight"


def test_an_error_about_a_file_carries_its_path(tmp_path) -> None:
    error = SessionFileError("it is damaged", path=tmp_path, target="fc.weight")

    for each in (error, *copies(error)):
        assert (str(each), each.path) == ("it is damaged", str(tmp_path))
        assert each.target == "fc.weight"


def test_several_problems_of_a_plan_survive_copying() -> None:
    for each in copies(PlanError(["one", "two"])):
        assert each.problems == ("one", "two")
        assert str(each) == "the plan has 2 problems:\n  one\n  two"


def test_notes_of_an_error_survive_copying() -> None:
    error = ConfigError([Problem("a", "wrong")], source="recipe.yaml")
    error.hint_of_the_caller = "look here"

    for each in copies(error):
        assert (each.problems, each.source) == (error.problems, "recipe.yaml")
        assert each.hint_of_the_caller == "look here"


def test_a_missing_report_is_named(tmp_path) -> None:
    place = tmp_path / "nowhere"

    with pytest.raises(SessionFileError) as caught:
        read_report(place)

    assert caught.value.path == str(place)


def test_an_unknown_plugin_is_named() -> None:
    with pytest.raises(UnknownPluginError) as caught:
        tersely.registry().pruners["no_such_pruner"]

    assert caught.value.plugin == "no_such_pruner"


def test_a_refused_export_carries_every_target_with_its_reason() -> None:
    refusals = (Refusal("it is float8", "fc.weight"), Refusal("it is sharded", "fc.bias"))
    error = ExportError(refusals, format="onnx")

    for each in (error, *copies(error)):
        assert each.refusals == refusals
        assert (each.target, each.reason, each.format) == ("fc.weight", "it is float8", "onnx")
        assert str(each) == (
            "onnx: 2 targets cannot be exported:\nfc.weight: it is float8\nfc.bias: it is sharded"
        )


def test_a_refused_export_of_one_target_is_one_sentence() -> None:
    error = ExportError("it is float64; export model.float()", target="fc._input_")

    assert str(error) == "fc._input_: it is float64; export model.float()"
