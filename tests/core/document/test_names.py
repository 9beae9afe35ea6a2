"""What is said about names of plugins: unknown, ambiguous, broken, or with broken schemas."""

import pytest
from messages.documents import at_least, did_you_mean, found, unknown_key
from messages.plugins import FAMILY_NOT_INSTALLED, MIGHT_PROVIDE

import tersely
from tersely.registry import registry as registry_module
from tersely.registry.registry import load_registry

STAGE = "pruning: {algorithm: %s, config_list: [{op_types: [Linear]}]}"


def face(hook, *descriptors):
    def provide(self):
        return list(descriptors)

    provide.__name__ = hook
    return type("Extra", (), {hook: tersely.hookimpl(provide)})()


def pruner(name, **more):
    return tersely.PrunerInfo(name=name, implementation="nowhere:Nothing", **more)


def test_an_unknown_algorithm_names_the_nearest_and_all(lines):
    assert lines(STAGE % "lvel") == [
        "1:22: pruning.algorithm: "
        + found("'lvel'", "a pruner: l1_norm, level, power or taylor", did_you_mean("level"))
    ]


def test_without_a_near_name_the_official_plugin_is_offered(lines):
    assert lines(STAGE % "movement") == [
        "1:22: pruning.algorithm: "
        + found(
            "'movement'",
            "a pruner: l1_norm, level, power or taylor",
            (
                f"tersely-pruning, which provides the official pruners, {FAMILY_NOT_INSTALLED} "
                "tersely-pruning"
            ),
        )
    ]


def test_an_algorithm_of_another_kind_is_unknown(lines):
    (line,) = lines(STAGE % "ptq")

    assert line.startswith("1:22: pruning.algorithm: " + found("'ptq'", "a pruner: l1_norm"))


def test_without_any_plugin_it_is_said_that_there_is_none(lines, registry):
    registry.unregister("tersely-known")

    assert lines(STAGE % "level") == [
        (
            "1:22: pruning.algorithm: found 'level', but no plugin that provides a pruner is "
            "installed (tersely-pruning, which provides the official pruners, "
            f"{FAMILY_NOT_INSTALLED} tersely-pruning)"
        )
    ]


def test_a_broken_plugin_that_might_provide_the_name_is_named(lines, tmp_path, monkeypatch):
    info = tmp_path / "tersely_bad-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tersely-bad\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[tersely]\nbad = tersely_bad_face\n")
    (tmp_path / "tersely_bad_face.py").write_text("import tersely_missing_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    loaded = load_registry(environ={}, path=[str(tmp_path)])
    monkeypatch.setattr(registry_module, "_process_registry", loaded)

    (line,) = lines(STAGE % "bad_norm")

    assert line.startswith("1:22: pruning.algorithm: found 'bad_norm', but no plugin that")
    assert f"tersely-bad 1.2, {MIGHT_PROVIDE} broken: " in line
    assert "No module named 'tersely_missing_dependency'" in line


def test_an_algorithm_may_be_written_with_its_distribution(lines):
    assert lines(STAGE % '"tersely-known:level"') == []


def test_a_name_that_two_distributions_provide_has_to_be_qualified(lines, registry):
    registry.register(face("tersely_pruners", pruner("level")), name="other")

    assert lines(STAGE % "level") == [
        "1:22: pruning.algorithm: 2 distributions provide a pruner called 'level': "
        "tersely-known 0+local and other 0+local; "
        "write 'tersely-known:level' or 'other:level'"
    ]
    assert lines(STAGE % "'other:level'") == []


def test_options_are_checked_for_a_qualified_name_too(lines):
    text = "pruning: {algorithm: 'tersely-known:power', options: {powr: 1}, config_list: [{op_types: [a]}]}"

    assert lines(text) == [
        "1:55: pruning.options.powr: "
        + unknown_key("powr", "the options of power", did_you_mean("power"))
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("options: {power: 0}, ", "1:46: pruning.options.power: " + found("0", "a number above 0")),
        ("options: 3, ", "1:38: pruning.options: " + found("3", "a mapping")),
    ],
)  # fmt: skip
def test_options_fit_the_schema_of_the_algorithm(lines, options, message):
    text = "pruning: {algorithm: power, %sconfig_list: [{op_types: [a]}]}"

    assert lines(text % options) == [message]


def test_options_without_defaults_have_to_be_given(lines):
    text = "pruning: {algorithm: taylor, %sconfig_list: [{op_types: [a]}]}"

    assert lines(text % "") == [
        "1:10: pruning: missing key 'options' in a pruning stage "
        "(write options: the options of taylor)"
    ]
    assert lines(text % "options: {}, ") == [
        (
            "1:39: pruning.options: missing key 'steps' in the options of taylor (write steps: "
            f"{at_least(1)})"
        )
    ]


def test_a_schema_with_references_of_its_own_works(lines, registry):
    schema = {
        "$defs": {"share": {"type": "number", "maximum": 1}},
        "type": "object",
        "properties": {"share": {"$ref": "#/$defs/share"}},
        "additionalProperties": False,
    }
    registry.register(face("tersely_pruners", pruner("own", options=schema)), name="other")
    text = "pruning: {algorithm: own, options: {share: %s}, config_list: [{op_types: [a]}]}"

    assert lines(text % "0.5") == []
    assert lines(text % "2") == [
        "1:44: pruning.options.share: " + found("2", "a number of at most 1")
    ]


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "objekt"}, "'objekt' is not valid under any of the given schemas"),
        ({"properties": 1}, "1 is not of type 'object'"),
    ],
)  # fmt: skip
def test_a_plugin_whose_schema_cannot_be_used_is_named(lines, registry, schema, reason):
    registry.register(face("tersely_pruners", pruner("bad", options=schema)), name="other")
    text = "pruning: {algorithm: bad, options: {a: 1}, config_list: [{op_types: [a]}]}"

    assert lines(text) == [
        f"1:22: pruning.algorithm: the options schema of other:bad 0+local cannot be used: {reason} "
        "(report it to the authors of other)"
    ]


def test_a_broken_schema_that_nobody_asks_for_hurts_nobody(lines, registry):
    registry.register(face("tersely_pruners", pruner("bad", options={"type": "x"})), name="other")

    assert lines(STAGE % "level") == []
