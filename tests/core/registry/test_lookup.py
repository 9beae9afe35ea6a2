"""Names: short, qualified, clashing and unknown."""

import pytest
from messages.plugins import (
    AGREEING_RELEASES,
    FAMILY_NOT_INSTALLED,
    MIGHT_PROVIDE,
    THIS_API,
    WRITTEN_FOR,
)

from tersely.errors import BrokenPluginError, PluginConflictError, UnknownPluginError
from tersely.registry.descriptors import PrunerInfo

ALGORITHMS = """
class Thin:
    pass

VALUE = 3
"""


def pruners(*names):
    infos = ", ".join(f"tersely.PrunerInfo(name={name!r}, implementation='a:B')" for name in names)
    return (
        "import tersely\ntersely_api = 1\n"
        f"@tersely.hookimpl\ndef tersely_pruners():\n    return [{infos}]\n"
    )


@pytest.fixture
def official(install):
    install("tersely-pruning", version="0.1.0", face=pruners("level", "l1_norm", "l2_norm"))


def message_of(error, call, *arguments):
    with pytest.raises(error) as caught:
        call(*arguments)
    return str(caught.value)


def test_a_name_gives_the_implementation(install, load):
    install("acme", modules={"acme_algorithms": ALGORITHMS})

    assert load().pruners["thin"].__name__ == "Thin"


def test_info_gives_the_descriptor_without_importing_the_implementation(install, load):
    install("acme")

    info = load().pruners.info("thin")

    assert info == PrunerInfo(
        name="thin", implementation="acme_algorithms:Thin", summary="Removes what is thin."
    )


def test_a_record_tells_the_distribution_and_its_version(install, load):
    install("acme", version="3.2")

    record = load().pruners.record("thin")

    assert (record.distribution, record.version, record.qualified) == ("acme", "3.2", "acme:thin")


def test_names_are_sorted(official, load):
    catalog = load().pruners

    assert catalog.names() == ("l1_norm", "l2_norm", "level")
    assert list(catalog) == ["l1_norm", "l2_norm", "level"]
    assert len(catalog) == 3


def test_a_catalog_contains_what_info_would_return(official, load):
    catalog = load().pruners

    assert "level" in catalog
    assert "tersely-pruning:level" in catalog
    assert "levle" not in catalog
    assert [4, 4] not in catalog


@pytest.mark.parametrize("spelling", ["tersely-pruning", "tersely_pruning", "Tersely.Pruning"])
def test_a_qualified_name_works_in_any_spelling_of_the_distribution(official, load, spelling):
    assert load().pruners.info(f"{spelling}:level").name == "level"


def test_kinds_do_not_share_names(official, load):
    registry = load()

    assert "level" in registry.pruners
    assert "level" not in registry.quantizers


def test_an_unknown_name_comes_with_the_nearest(official, load):
    assert message_of(UnknownPluginError, load().pruners.info, "l1norm") == (
        "no plugin provides a pruner called 'l1norm'; did you mean 'l1_norm' or 'l2_norm'?"
    )


def test_an_unknown_name_that_is_near_to_nothing_comes_with_all(official, load):
    assert message_of(UnknownPluginError, load().pruners.info, "magnitude") == (
        "no plugin provides a pruner called 'magnitude'; there are l1_norm, l2_norm, level"
    )


def test_a_long_list_of_names_is_cut(install, load):
    install("tersely-pruning", face=pruners(*(f"p{number:02}" for number in range(15))))

    assert message_of(UnknownPluginError, load().pruners.info, "zzz") == (
        "no plugin provides a pruner called 'zzz'; there are p00, p01, p02, p03, p04, p05, p06, "
        "p07, p08, p09, p10, p11 and 3 more"
    )


def test_a_missing_family_is_named_with_the_command_that_installs_it(load):
    assert message_of(UnknownPluginError, load().pruners.info, "l1_norm") == (
        "no plugin provides a pruner called 'l1_norm'\n"
        f"  tersely-pruning, which provides the official pruners, {FAMILY_NOT_INSTALLED} "
        "tersely-pruning"
    )


@pytest.mark.parametrize(
    ("catalog", "kind", "family"),
    [
        ("quantizers", "a quantizer", "tersely-quantization"),
        ("granularities", "a granularity", "tersely-granularity"),
        ("losses", "a loss", "tersely-distillation"),
        ("schedules", "a schedule", "tersely-pruning"),
        ("exporters", "an exporter", "tersely-export"),
    ],
)
def test_each_kind_names_its_own_family(load, catalog, kind, family):
    text = message_of(UnknownPluginError, getattr(load(), catalog).info, "x")

    assert text == (
        f"no plugin provides {kind} called 'x'\n"
        f"  {family}, which provides the official {catalog}, {FAMILY_NOT_INSTALLED} {family}"
    )


def test_an_unknown_distribution_comes_with_the_nearest(official, load):
    assert message_of(UnknownPluginError, load().pruners.info, "tersely-prune:level") == (
        "no plugin provides a pruner called 'tersely-prune:level': there is no distribution "
        "'tersely-prune', did you mean 'tersely-pruning'?"
    )


def test_an_unknown_name_of_a_known_distribution_comes_with_qualified_names(official, load):
    assert message_of(UnknownPluginError, load().pruners.info, "tersely-pruning:levle") == (
        "no plugin provides a pruner called 'tersely-pruning:levle'; did you mean "
        "'tersely-pruning:level'?"
    )


def test_an_unknown_name_lists_the_plugins_that_might_provide_it(official, install, load):
    install("broken-one", face="import nowhere_to_be_found")
    install("denied-one", face=pruners("a"))
    install("refused-one", face=pruners("b").replace("tersely_api = 1", "tersely_api = 7"))
    registry = load(TERSELY_NO_PLUGINS="denied-one")

    with pytest.raises(UnknownPluginError) as caught:
        registry.pruners.info("levle")

    assert str(caught.value) == (
        "no plugin provides a pruner called 'levle'; did you mean 'level'?\n"
        f"  broken-one 1.0, {MIGHT_PROVIDE} broken: importing its face broken_one raised "
        "ModuleNotFoundError: No module named 'nowhere_to_be_found'\n"
        f"  denied-one 1.0, {MIGHT_PROVIDE} denied by TERSELY_NO_PLUGINS\n"
        f"  refused-one 1.0, {MIGHT_PROVIDE} refused: {WRITTEN_FOR} 7, {THIS_API} 1.1; "
        f"{AGREEING_RELEASES}"
    )
    assert isinstance(caught.value.__cause__, BrokenPluginError)
    assert isinstance(caught.value.__cause__.__cause__, ModuleNotFoundError)


def test_an_unknown_name_is_a_lookup_error(load):
    with pytest.raises(LookupError):
        load().pruners["nothing"]


def test_a_clash_hurts_only_who_uses_the_short_name(install, load):
    install("acme", version="1.2", face=pruners("level", "thin"))
    install("tersely-pruning", version="0.1.0", face=pruners("level"))
    catalog = load().pruners

    assert catalog.info("thin").name == "thin"
    assert message_of(PluginConflictError, catalog.info, "level") == (
        "2 distributions provide a pruner called 'level': acme 1.2 and tersely-pruning 0.1.0; "
        "write 'acme:level' or 'tersely-pruning:level'"
    )


def test_a_clashing_name_is_listed_qualified(install, load):
    install("acme", face=pruners("level", "thin"))
    install("tersely-pruning", face=pruners("level"))
    catalog = load().pruners

    assert catalog.names() == ("acme:level", "tersely-pruning:level", "thin")
    assert "level" not in catalog
    assert catalog.record("acme:level").distribution == "acme"


def test_a_broken_plugin_does_not_clash(install, load, official):
    install("acme", face=pruners("level") + "\ndef tersely_exporters(): ...\n")

    assert load().pruners.record("level").distribution == "tersely-pruning"


def test_an_implementation_that_cannot_be_imported_is_broken(install, load):
    install("acme", modules={"acme_algorithms": "import nowhere_to_be_found"})

    with pytest.raises(BrokenPluginError) as caught:
        load().pruners["thin"]

    assert str(caught.value) == (
        "pruner 'thin' of acme 1.0 is broken: importing acme_algorithms raised "
        "ModuleNotFoundError: No module named 'nowhere_to_be_found'; repair or reinstall acme"
    )
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_an_implementation_that_is_not_there_comes_with_the_nearest(install, load):
    install("acme", modules={"acme_algorithms": "class Thinn: ..."})

    assert message_of(BrokenPluginError, load().pruners.__getitem__, "thin") == (
        "pruner 'thin' of acme 1.0 is broken: acme_algorithms has no 'Thin', did its author mean "
        "'Thinn'? (its descriptor says 'acme_algorithms:Thin')"
    )


def test_an_implementation_that_cannot_be_called_is_broken(install, load):
    install("acme", modules={"acme_algorithms": "Thin = 3"})

    assert message_of(BrokenPluginError, load().pruners.__getitem__, "thin") == (
        "pruner 'thin' of acme 1.0 is broken: acme_algorithms:Thin is of type int, expected a "
        "class or function"
    )
