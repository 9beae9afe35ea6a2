"""One bad plugin: what is recorded of it, and that it hurts nobody else."""

import pytest
from messages.plugins import AGREEING_RELEASES, NO_API, THIS_API, WRITTEN_FOR

from tersely.errors import BrokenPluginError, PluginApiError

GOOD = """
import tersely

tersely_api = 1


@tersely.hookimpl
def tersely_pruners():
    return [tersely.PrunerInfo(name="good", implementation="a:B")]
"""

HEAD = "import tersely\ntersely_api = 1\n"


def face(body):
    return HEAD + body


BAD_FACES = {
    "a missing dependency": (
        "import nowhere_to_be_found",
        "importing its face bad raised ModuleNotFoundError: No module named 'nowhere_to_be_found'",
    ),
    "a syntax error": (
        "def",
        "importing its face bad raised SyntaxError: invalid syntax (bad.py, line 1)",
    ),
    "a call of sys.exit": (
        "raise SystemExit(3)",
        "importing its face bad raised SystemExit: 3",
    ),
    "a hook that calls sys.exit": (
        face("@tersely.hookimpl\ndef tersely_pruners():\n    raise SystemExit(3)\n"),
        "tersely_pruners() raised SystemExit: 3",
    ),
    "an exception of a kind of its own": (
        "class Stop(BaseException): ...\nraise Stop('now')",
        "importing its face bad raised Stop: now",
    ),
    "options that are no mapping": (
        face(
            "@tersely.hookimpl\ndef tersely_pruners():\n"
            "    return [tersely.PrunerInfo(name='a', implementation='a:b', options=None)]\n"
        ),
        "options of the pruner 'a' cannot be used: it is of type NoneType, expected a mapping",
    ),
    "a hook that raises": (
        face("@tersely.hookimpl\ndef tersely_pruners():\n    raise KeyError('seven')\n"),
        "tersely_pruners() raised KeyError: 'seven'",
    ),
    "two hooks that fail": (
        face(
            "@tersely.hookimpl\ndef tersely_pruners(): ...\n"
            "@tersely.hookimpl\ndef tersely_exporters():\n    raise ValueError\n"
        ),
        "tersely_pruners() returned NoneType, expected a list of PrunerInfo; "
        "tersely_exporters() raised ValueError",
    ),
    "a hook that yields": (
        face("@tersely.hookimpl\ndef tersely_pruners():\n    yield 1\n"),
        "tersely_pruners() returned generator, expected a list of PrunerInfo",
    ),
    "a descriptor of another kind": (
        face(
            "@tersely.hookimpl\ndef tersely_pruners():\n"
            "    return [tersely.LossInfo(name='a', implementation='a:b')]\n"
        ),
        "tersely_pruners()[0] is of type LossInfo, expected PrunerInfo",
    ),
    "a descriptor with an illegal name": (
        face(
            "@tersely.hookimpl\ndef tersely_pruners():\n"
            "    return [tersely.PrunerInfo(name='L1-Norm', implementation='a:b')]\n"
        ),
        "tersely_pruners() raised ValueError: PrunerInfo: name 'L1-Norm' must match ^[a-z][a-z0-9_]*$",
    ),
    "a module setting that is a dict": (
        face("@tersely.hookimpl\ndef tersely_module_settings():\n    return [{}]\n"),
        "tersely_module_settings()[0] is of type dict, expected ModuleSetting",
    ),
    "the same name twice": (
        face(
            "@tersely.hookimpl\ndef tersely_pruners():\n"
            "    return [tersely.PrunerInfo(name='a', implementation='a:b')] * 2\n"
        ),
        "it provides 2 pruners called 'a', names must be unique",
    ),
    "an unknown argument": (
        face("@tersely.hookimpl\ndef tersely_pruners(model):\n    return []\n"),
        "pluggy does not accept its hooks: PluginValidationError: Plugin 'bad:bad' for hook "
        "'tersely_pruners' hookimpl definition: tersely_pruners(model) Argument(s) {'model'} are "
        "declared in the hookimpl but can not be found in the hookspec",
    ),
    "an unknown hook": (
        face("@tersely.hookimpl\ndef tersely_pruner():\n    return []\n"),
        "tersely_pruner is not a hook of tersely; did you mean tersely_pruners?",
    ),
    "a hook without its decorator": (
        face("def tersely_pruners():\n    return []\n"),
        "tersely_pruners lacks the decorator @tersely.hookimpl",
    ),
    "a hook declared as a wrapper": (
        face("@tersely.hookimpl(wrapper=True)\ndef tersely_finalized():\n    yield\n"),
        "tersely_finalized is declared as a wrapper, and tersely's hooks take none",
    ),
    "no hook at all": (
        HEAD,
        "it implements no hook; decorate a function such as tersely_pruners() with @tersely.hookimpl",
    ),
}


@pytest.fixture(params=BAD_FACES, ids=str)
def bad(request):
    return BAD_FACES[request.param]


def test_a_bad_face_is_broken_and_says_why(install, load, bad):
    source, reason = bad
    install("bad", face=source)

    record = load().plugins()[1]

    assert (record.state, record.reason) == ("broken", reason)


def test_a_bad_face_hurts_no_other(install, load, bad):
    install("bad", face=bad[0])
    install("zoo", face=GOOD)

    assert load().pruners.info("good").name == "good"


def test_asking_a_bad_distribution_by_its_qualified_name_raises_what_is_wrong(install, load, bad):
    source, reason = bad
    install("bad", face=source)

    with pytest.raises(BrokenPluginError) as caught:
        load().pruners.info("bad:anything")

    assert str(caught.value) == (
        f"bad 1.0 is broken: {reason}; repair or uninstall it, or do without it: "
        f"TERSELY_NO_PLUGINS=bad"
    )


def test_strict_makes_a_bad_face_fatal(install, load, bad):
    source, reason = bad
    install("bad", face=source)

    with pytest.raises(BrokenPluginError) as caught:
        load(TERSELY_STRICT_PLUGINS="1")

    assert reason in str(caught.value)


def test_the_cause_is_the_plugins_own_exception(install, load):
    install("bad", face="import nowhere_to_be_found")

    with pytest.raises(BrokenPluginError) as caught:
        load().pruners.info("bad:anything")

    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_asking_twice_raises_two_errors(install, load):
    install("bad", face="import nowhere_to_be_found")
    registry = load()

    with pytest.raises(BrokenPluginError) as first:
        registry.pruners.info("bad:anything")
    with pytest.raises(BrokenPluginError) as second:
        registry.pruners.info("bad:anything")

    assert first.value is not second.value


def test_a_plugin_is_taken_whole(install, load):
    install(
        "bad",
        face=GOOD + "\n@tersely.hookimpl\ndef tersely_exporters():\n    raise RuntimeError('no')\n",
    )
    registry = load()

    assert registry.pruners.names() == ()
    assert registry.plugins()[1].provides == (("pruner", "good"),)
    with pytest.raises(BrokenPluginError, match=r"tersely_exporters\(\) raised RuntimeError: no"):
        registry.pruners.info("good")


def test_a_broken_plugin_no_longer_observes(install, load):
    install(
        "bad",
        face=HEAD
        + """
@tersely.hookimpl
def tersely_finalized(session):
    session.append("seen")

@tersely.hookimpl
def tersely_pruners():
    raise RuntimeError
""",
    )
    seen = []

    load().observe("tersely_finalized", session=seen)

    assert seen == []


REFERENCES = {
    "a pointer that leads nowhere": (
        {"properties": {"a": {"$ref": "#/$defs/missing"}}},
        "#/properties/a/$ref is '#/$defs/missing', which does not exist",
    ),
    "an anchor that nothing has": (
        {"allOf": [{"$ref": "#missing"}]},
        "#/allOf/0/$ref is '#missing', which does not exist",
    ),
    "another document": (
        {"properties": {"a": {"$ref": "https://example.org/a.json"}}},
        "#/properties/a/$ref is 'https://example.org/a.json', which is outside of the schema",
    ),
    "itself": (
        {"$defs": {"a": {"$ref": "#/$defs/a"}}},
        "#/$defs/a/$ref is '#/$defs/a', which refers to itself",
    ),
    "a number": ({"items": {"$ref": 1}}, "#/items/$ref is of type int, expected text"),
}


@pytest.mark.parametrize(("schema", "reason"), REFERENCES.values(), ids=list(REFERENCES))
def test_options_that_refer_to_what_is_not_there_break_their_plugin_alone(
    install, load, schema, reason
):
    source = (
        "@tersely.hookimpl\ndef tersely_pruners():\n"
        f"    return [tersely.PrunerInfo(name='a', implementation='a:b', options={schema!r})]\n"
    )
    install("bad", face=face(source))
    install("zoo", face=GOOD)
    registry = load()

    assert registry.plugins()[1].reason == f"options of the pruner 'a' cannot be used: {reason}"
    assert registry.pruners.names() == ("good",)


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"a~/%": {}}, "properties": {"a": {"$ref": "#/$defs/a~0~1%25"}}},
        {"properties": {"a": {"$anchor": "here"}, "b": {"$ref": "#here"}}},
        {"allOf": [{"type": "object"}, {"properties": {"a": {"$ref": "#/allOf/0"}}}]},
        {"properties": {"a": {"$ref": "#"}}},
    ],
)
def test_references_that_lead_somewhere_are_fine(install, load, schema):
    source = (
        "@tersely.hookimpl\ndef tersely_pruners():\n"
        f"    return [tersely.PrunerInfo(name='a', implementation='a:b', options={schema!r})]\n"
    )
    install("fine", face=face(source))

    assert load().plugins()[1].state == "ok"


def test_of_two_faces_of_one_distribution_with_one_name_the_second_is_broken(install, load):
    body = "    return [tersely.PrunerInfo(name='same', implementation='a:b')]\n"
    source = face("@tersely.hookimpl\ndef tersely_pruners():\n" + body)
    install(
        "acme",
        face=source,
        modules={"acme_other": source},
        entry_points="[tersely]\na = acme\nb = acme_other\n",
    )
    install("zoo", face=GOOD)
    registry = load()

    assert [record.state for record in registry.plugins()[1:]] == ["ok", "broken", "ok"]
    assert registry.plugins()[2].reason == (
        "its face b provides the pruner 'same', as the face a of the same distribution does"
    )
    assert registry.pruners.names() == ("good", "same")
    assert registry.pruners.record("acme:same").distribution == "acme"


def test_what_a_face_prints_is_kept_to_itself(install, load, capsys):
    hook = "@tersely.hookimpl\ndef tersely_pruners():\n    print('two')\n    return []\n"
    install("loud", face=face(f"print('one')\n{hook}"))

    record = load().plugins()[1]

    assert capsys.readouterr().out == ""
    assert (record.state, record.loading.printed) == ("ok", "one\ntwo\n")


def test_every_face_that_imports_torch_is_known(install, load):
    pytest.importorskip("torch")
    hook = "@tersely.hookimpl\ndef tersely_pruners(): return []\n"
    install("heavy", face=face(f"import torch\n{hook}"))
    install("heavy-too", face=face(f"from torch.nn import Linear\n{hook}"))
    install("light", face=face(hook))

    records = load().plugins()[1:]

    assert [record.loading.imports_torch for record in records] == [True, True, False]


def test_how_long_a_face_takes_is_known(install, load):
    hook = "@tersely.hookimpl\ndef tersely_pruners(): return []\n"
    install("slow", face=face(f"import time\ntime.sleep(0.05)\n{hook}"))

    assert load().plugins()[1].loading.seconds >= 0.05


def test_what_is_denied_is_not_loaded(install, load):
    install("acme", face=GOOD)

    assert load(TERSELY_NO_PLUGINS="acme").plugins()[1].loading is None


def test_keyboard_interrupts_are_not_swallowed(install, load):
    install("bad", face="raise KeyboardInterrupt")

    with pytest.raises(KeyboardInterrupt):
        load()


def test_two_entry_points_to_one_face_are_one_too_many(install, load):
    install("acme", face=GOOD, entry_points="[tersely]\nfirst = acme\nsecond = acme\n")

    first, second = load().plugins()[1:]

    assert first.state == "ok"
    assert second.state == "broken"
    assert "already registered under a different name" in second.reason


def test_a_face_for_another_api_is_refused_with_both_versions(install, load):
    install("acme", face=GOOD.replace("tersely_api = 1", "tersely_api = 2"))

    record = load().plugins()[1]

    assert record.state == "refused"
    assert record.reason == f"{WRITTEN_FOR} 2, {THIS_API} 1.1; {AGREEING_RELEASES}"


def test_a_face_that_states_no_api_is_refused(install, load):
    install("acme", face=GOOD.replace("tersely_api = 1", ""))

    record = load().plugins()[1]

    assert record.state == "refused"
    assert record.reason == (
        f"it {NO_API} it is written for, {THIS_API} 1.1; its face needs the line 'tersely_api = 1'"
    )


@pytest.mark.parametrize("stated", ["1", "(1, 0)", "(1, 1)"])
def test_a_face_states_the_lowest_api_that_it_needs(install, load, stated):
    install("acme", face=GOOD.replace("tersely_api = 1", f"tersely_api = {stated}"))

    assert load().plugins()[1].state == "ok"


def test_a_face_that_needs_a_later_api_is_refused(install, load):
    install("acme", face=GOOD.replace("tersely_api = 1", "tersely_api = (1, 2)"))

    assert load().plugins()[1].reason == f"{WRITTEN_FOR} 1.2, {THIS_API} 1.1; {AGREEING_RELEASES}"


@pytest.mark.parametrize(
    "stated", ["True", "'1'", "1.5", "(1,)", "(1, True)", "(1, 0, 0)", "(0, 1)"]
)
def test_an_api_version_that_only_looks_right_is_refused(install, load, stated):
    install("acme", face=GOOD.replace("tersely_api = 1", f"tersely_api = {stated}"))

    assert load().plugins()[1].state == "refused"


@pytest.mark.parametrize("name", ["good", "acme:good", "acme:other"])
def test_asking_for_what_a_refused_plugin_provides_raises_both_versions(install, load, name):
    install("acme", face=GOOD.replace("tersely_api = 1", "tersely_api = 2"))

    with pytest.raises(PluginApiError) as caught:
        load().pruners.info(name)

    assert str(caught.value) == (
        f"acme 1.0 is refused: {WRITTEN_FOR} 2, {THIS_API} 1.1; {AGREEING_RELEASES}"
    )


def test_strict_makes_a_refused_face_fatal(install, load):
    install("acme", face=GOOD.replace("tersely_api = 1", "tersely_api = 2"))

    with pytest.raises(PluginApiError, match="plugin API 2"):
        load(TERSELY_STRICT_PLUGINS="1")


def test_strict_does_not_mind_what_is_denied(install, load):
    install("bad", face="import nowhere_to_be_found")

    registry = load(TERSELY_STRICT_PLUGINS="1", TERSELY_NO_PLUGINS="bad")

    assert registry.plugins()[1].state == "denied"
