"""Registering by hand, observing, revisions, and the process-wide registry."""

import subprocess
import sys
import threading
import types

import pytest
from messages.plugins import AGREEING_RELEASES, THIS_API, WRITTEN_FOR

import tersely
from tersely.errors import (
    BrokenPluginError,
    PlanError,
    PluginApiError,
    PluginConflictError,
    PluginError,
    UnknownPluginError,
)
from tersely.registry import registry as registry_module
from tersely.registry.registry import Registry

ONE = tersely.PrunerInfo(name="one", implementation="collections:OrderedDict")


class Face:
    """A plugin object as a notebook would define it."""

    @tersely.hookimpl
    def tersely_pruners(self):
        return [ONE]


@pytest.fixture
def registry():
    return Registry()


def message_of(error, call, *arguments, **keywords):
    with pytest.raises(error) as caught:
        call(*arguments, **keywords)
    return str(caught.value)


def test_an_object_is_registered_under_its_class_name(registry):
    assert registry.register(Face()) == "Face"
    assert registry.pruners.record("one").qualified == "Face:one"


def test_a_registered_implementation_is_imported_like_any_other(registry):
    registry.register(Face())

    assert registry.pruners["one"].__name__ == "OrderedDict"


def test_a_module_is_registered_under_its_name(registry):
    module = types.ModuleType("my_face")
    module.tersely_pruners = tersely.hookimpl(lambda: [ONE])

    assert registry.register(module) == "my_face"


def test_a_given_name_is_the_distribution(registry):
    registry.register(Face(), name="notebook")

    record = registry.plugins()[0]
    assert (record.name, record.distribution, record.version) == (
        "notebook",
        "notebook",
        "0+local",
    )
    assert registry.pruners.info("notebook:one") == ONE


def test_a_version_is_taken_from_the_plugin(registry):
    face = Face()
    face.__version__ = "4.5"
    registry.register(face)

    assert registry.plugins()[0].version == "4.5"


def test_a_second_plugin_of_that_name_is_refused(registry):
    registry.register(Face())

    assert message_of(PluginConflictError, registry.register, Face()) == (
        "a plugin called 'Face' is registered already (Face 0+local, ok); choose another name, or "
        "call unregister('Face') first"
    )


def test_two_plugins_of_one_name_for_a_pruner_clash(registry):
    registry.register(Face(), name="first")
    registry.register(Face(), name="second")

    assert registry.pruners.names() == ("first:one", "second:one")


def test_a_bad_object_is_refused_at_once(registry):
    class Bad:
        @tersely.hookimpl
        def tersely_pruners(self):
            raise KeyError("seven")

    with pytest.raises(BrokenPluginError) as caught:
        registry.register(Bad())

    assert str(caught.value) == (
        "Bad cannot be registered: tersely_pruners() raised KeyError: 'seven'"
    )
    assert isinstance(caught.value.__cause__, KeyError)
    assert registry.plugins() == ()


def test_a_bad_object_may_be_repaired_and_registered_again(registry):
    class Bad:
        tersely_pruners = tersely.hookimpl(lambda self: None)

    with pytest.raises(BrokenPluginError):
        registry.register(Bad(), name="mine")

    assert registry.register(Face(), name="mine") == "mine"


def test_an_object_for_another_api_is_refused(registry):
    face = Face()
    face.tersely_api = 2

    assert message_of(PluginApiError, registry.register, face) == (
        f"Face cannot be registered: {WRITTEN_FOR} 2, {THIS_API} 1.1; {AGREEING_RELEASES}"
    )


@pytest.mark.parametrize("how", ["object", "name"])
def test_unregistering_takes_everything_away(registry, how):
    face = Face()
    name = registry.register(face)

    registry.unregister(face if how == "object" else name)

    assert registry.plugins() == ()
    assert "one" not in registry.pruners


def test_an_unregistered_object_can_be_registered_again(registry):
    face = Face()
    registry.unregister(registry.register(face))

    assert registry.register(face) == "Face"


def test_unregistering_a_stranger_lists_who_is_there(registry):
    registry.register(Face(), name="mine")

    assert message_of(UnknownPluginError, registry.unregister, "yours") == (
        "no plugin 'yours' is registered; registered: mine"
    )


def test_an_installed_plugin_is_unregistered_by_its_distribution(install, load):
    install("acme-pruners", entry_points="[tersely]\nentry = acme_pruners\n")
    registry = load()

    registry.unregister("acme-pruners")

    assert "thin" not in registry.pruners


def test_a_broken_plugin_can_be_unregistered(install, load):
    install("bad", face="import nowhere_to_be_found")
    registry = load()

    registry.unregister("bad")

    assert [record.name for record in registry.plugins()] == ["tersely"]


def test_the_revision_grows_with_every_change(registry):
    revisions = [registry.revision]
    name = registry.register(Face())
    revisions.append(registry.revision)
    registry.register_module_setting(tersely.ModuleSetting(module_type="Mine"))
    revisions.append(registry.revision)
    registry.unregister(name)
    revisions.append(registry.revision)

    assert revisions == sorted(set(revisions))


def test_the_revision_stays_when_nothing_changed(registry):
    before = registry.revision
    with pytest.raises(UnknownPluginError):
        registry.unregister("nobody")

    assert registry.revision == before


def test_the_users_module_settings_come_last(registry):
    class Settings:
        @tersely.hookimpl
        def tersely_module_settings(self):
            return [tersely.ModuleSetting(module_type="Theirs")]

    registry.register_module_setting(tersely.ModuleSetting(module_type="Mine"))
    registry.register(Settings())

    types_ = [setting.module_type for setting in registry.module_settings()]
    assert types_ == ["Theirs", "Mine"]


def test_a_module_setting_must_be_one(registry):
    assert message_of(TypeError, registry.register_module_setting, {}) == (
        "register_module_setting() takes a ModuleSetting, not dict"
    )


class Observer:
    def __init__(self, action):
        self.action = action

    @tersely.hookimpl
    def tersely_plan_resolved(self, plan):
        self.action(plan)


def test_observers_are_called_with_what_they_ask_for(registry):
    seen = []

    class Frugal:
        @tersely.hookimpl
        def tersely_masks_updated(self, sparsity):
            seen.append(sparsity)

    registry.register(Frugal())
    registry.observe("tersely_masks_updated", session=None, sparsity={"fc": {"weight": 0.5}})

    assert seen == [{"fc": {"weight": 0.5}}]


def fail(plan):
    raise KeyError("seven")


def test_an_observer_that_fails_does_not_keep_the_others_from_seeing(registry):
    seen = []
    registry.register(Observer(seen.append), name="first")
    registry.register(Observer(fail), name="second")
    registry.register(Observer(seen.append), name="third")

    text = message_of(BrokenPluginError, registry.observe, "tersely_plan_resolved", plan="plan")

    assert text == "second is broken: tersely_plan_resolved() raised KeyError: 'seven'"
    assert seen == ["plan", "plan"]


def test_an_observer_may_veto_with_an_error_of_tersely(registry):
    def veto(plan):
        raise PlanError("the head must stay dense")

    registry.register(Observer(veto))

    text = message_of(PlanError, registry.observe, "tersely_plan_resolved", plan=None)
    assert text == "the head must stay dense"


def test_only_observing_hooks_are_observed(registry):
    assert message_of(ValueError, registry.observe, "tersely_pruners") == (
        "'tersely_pruners' is not among the hooks tersely_plan_resolved, tersely_masks_updated, "
        "tersely_finalized"
    )


@pytest.fixture
def fresh_process(monkeypatch):
    monkeypatch.setattr(registry_module, "_process_registry", None)


def test_the_process_has_one_registry(fresh_process):
    assert tersely.registry() is tersely.registry()


def test_threads_load_it_once(fresh_process, install):
    install("acme", face="import time\ntime.sleep(0.05)\nimport tersely\ntersely_api = 1\n")
    barrier = threading.Barrier(8)
    found = []

    def ask():
        barrier.wait()
        found.append(tersely.registry())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len({id(each) for each in found}) == 1


def test_threads_register_without_losing_any(registry):
    def register(number):
        info = tersely.PrunerInfo(name=f"p{number}", implementation="a:B")
        face = types.SimpleNamespace()
        face.tersely_pruners = tersely.hookimpl(lambda: [info])
        registry.register(face, name=f"plugin{number}")

    threads = [threading.Thread(target=register, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(registry.pruners) == 20
    assert registry.revision == 21


def test_a_face_that_asks_the_registry_is_broken(fresh_process, install):
    install("acme", face="import tersely\ntersely_api = 1\ntersely.registry()\n")

    record = next(each for each in tersely.registry().plugins() if each.name == "acme")

    assert record.reason == (
        "importing its face acme raised PluginError: tersely.registry() was called while plugins "
        "are being loaded; a face only describes, look things up when the algorithm runs"
    )


def test_a_strict_failure_is_raised_again_by_the_next_call(fresh_process, install, monkeypatch):
    monkeypatch.setenv("TERSELY_STRICT_PLUGINS", "1")
    install("bad", face="import nowhere_to_be_found")

    for _ in range(2):
        with pytest.raises(PluginError, match=r"bad 1\.0 is broken"):
            tersely.registry()


def test_a_setting_registered_by_the_user_reaches_the_process_wide_registry(fresh_process):
    setting = tersely.ModuleSetting(module_type="Mine")

    tersely.register_module_setting(setting)

    assert tersely.registry().module_settings()[-1] is setting


def test_importing_submodules_leaves_the_public_function_in_place():
    code = (
        "import tersely, tersely.registry.registry, tersely.registry.descriptors as d\n"
        "from tersely import registry\n"
        "assert tersely.registry() is registry()\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_loading_the_registry_imports_neither_torch_nor_structlog(install, site):
    install("acme")
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import tersely\n"
        "assert tersely.registry().pruners.info('acme:thin').name == 'thin'\n"
        "print([name for name in ('torch', 'structlog', 'rich', 'click') if name in sys.modules])\n"
    )

    ran = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True
    )

    assert ran.stdout == "[]\n"
