"""Which announcements are found, and which the environment lets in."""

import sys
from pathlib import Path

import pytest

from tersely.errors import UnknownPluginError
from tersely.registry.discovery import announcements, read_policy


def states(registry):
    return {record.name: record.state for record in registry.plugins()}


def test_an_announced_face_is_loaded_with_its_distribution_and_version(install, load):
    install("acme-pruners", version="2.1")

    record = load().plugins()[1]

    assert (record.name, record.distribution, record.version) == (
        "acme_pruners",
        "acme-pruners",
        "2.1",
    )
    assert record.state == "ok"
    assert record.provides == (("pruner", "thin"),)


def test_the_core_itself_comes_first(install, load):
    install("acme")

    assert [record.name for record in load().plugins()] == ["tersely", "acme"]


def test_plugins_are_ordered_by_distribution_not_by_the_file_system(install, load):
    for name in ("zeta", "alpha", "Beta"):
        install(name, face="import tersely\ntersely_api = 1\n")

    assert [record.distribution for record in load().plugins()[1:]] == ["alpha", "Beta", "zeta"]


def test_a_distribution_found_twice_counts_once(install, load, site, tmp_path):
    install("acme")
    install("acme", folder=tmp_path / "second")

    registry = load(site, tmp_path / "second")

    assert registry.pruners.names() == ("thin",)
    assert states(registry) == {"tersely": "ok", "acme": "ok"}


def test_of_two_versions_the_first_on_the_path_counts(install, load, site, tmp_path):
    install("acme", version="1.0", folder=tmp_path / "second")
    install("acme", version="2.0")

    assert load(site, tmp_path / "second").plugins()[1].version == "2.0"


def test_an_entry_point_written_twice_counts_once(install, load):
    install("acme", entry_points="[tersely]\nacme = acme\nacme = acme\n")

    assert states(load()) == {"tersely": "ok", "acme": "ok"}


def test_other_groups_are_ignored(install, load):
    install("acme", entry_points="[console_scripts]\nacme = acme:main\n")

    assert states(load()) == {"tersely": "ok"}


def test_a_strangers_damaged_file_does_not_matter(install, load):
    install("acme")
    install("stranger", entry_points="[console_scripts]\nthis is no entry point\n")

    assert states(load()) == {"tersely": "ok", "acme": "ok"}


def test_a_file_that_is_not_text_is_passed_over(install, load):
    install("acme")
    info = install("stranger")
    (info / "entry_points.txt").write_bytes(b"\xff\xfe[tersely]\n")

    assert states(load()) == {"tersely": "ok", "acme": "ok"}


def test_our_own_damaged_file_is_a_broken_plugin(install, load):
    install("acme", entry_points="[tersely]\nthis is no entry point\n")

    record = load().plugins()[1]

    assert (record.name, record.state) == ("acme", "broken")
    assert record.reason == (
        "its entry_points.txt cannot be read: TypeError: Pair.__new__() missing 1 required "
        "positional argument: 'value'"
    )


def test_a_distribution_without_metadata_goes_by_its_entry_point(install, load):
    info = install("acme")
    (info / "METADATA").unlink()

    record = load().plugins()[1]

    assert (record.distribution, record.version, record.state) == ("acme", "unknown", "ok")


def test_an_entry_point_may_name_an_object_of_a_module(install, load):
    install(
        "acme",
        entry_points="[tersely]\nacme = acme:face\n",
        face="""
        import tersely

        class Face:
            tersely_api = 1

            @tersely.hookimpl
            def tersely_pruners(self):
                return [tersely.PrunerInfo(name="thin", implementation="a:B")]

        face = Face()
        """,
    )

    assert load().pruners.names() == ("thin",)


def test_the_default_path_is_where_python_imports_from(install):
    install("acme")

    assert "acme" in [announcement.name for announcement in announcements()]


@pytest.mark.parametrize("spelling", ["acme_pruners", "acme-pruners", "Acme.Pruners", "entry"])
def test_denying_goes_by_distribution_or_entry_point_in_any_spelling(install, load, spelling):
    install("acme-pruners", entry_points="[tersely]\nentry = acme_pruners\n")

    registry = load(TERSELY_NO_PLUGINS=f"other, {spelling}")

    record = registry.plugins()[1]
    assert (record.state, record.reason) == ("denied", "denied by TERSELY_NO_PLUGINS")
    assert "thin" not in registry.pruners


def test_a_denied_face_is_not_imported(install, load):
    install("acme")

    load(TERSELY_NO_PLUGINS="acme")

    assert "acme" not in sys.modules


def test_an_allow_list_lets_in_what_it_names_and_the_core(install, load):
    install("acme")
    install("other")

    registry = load(TERSELY_PLUGINS="acme")

    assert states(registry) == {"tersely": "ok", "acme": "ok", "other": "denied"}
    assert registry.plugins()[2].reason == "not among the plugins that TERSELY_PLUGINS allows"


def test_a_denial_wins_over_a_permission(install, load):
    install("acme")

    registry = load(TERSELY_PLUGINS="acme", TERSELY_NO_PLUGINS="acme")

    assert states(registry)["acme"] == "denied"


def test_asking_for_a_denied_plugin_by_its_qualified_name_says_who_denies_it(install, load):
    install("acme")

    with pytest.raises(UnknownPluginError) as caught:
        load(TERSELY_NO_PLUGINS="acme").pruners.info("acme:thin")

    assert str(caught.value) == "acme 1.0 is denied by TERSELY_NO_PLUGINS"


def test_an_empty_variable_counts_as_absent():
    assert read_policy({"TERSELY_PLUGINS": " ", "TERSELY_STRICT_PLUGINS": ""}) == read_policy({})


def test_an_allowed_plugin_that_is_not_installed_is_warned_of(load, capsys):
    load(TERSELY_PLUGINS="tersely-tyop")

    error = capsys.readouterr().err
    assert "allowed_plugins_not_installed" in error
    assert "names=['tersely-tyop']" in error


def test_announcements_do_not_import_what_they_find(install, site: Path):
    install("acme", face="raise RuntimeError('imported')")

    assert [each.name for each in announcements([str(site)])] == ["acme"]
