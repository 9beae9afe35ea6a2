"""Which versions of the plugin API a face may state, as docs/stability.md lists them."""

import types

import pytest
from messages.plugins import AGREEING_RELEASES, THIS_API, WRITTEN_FOR

import tersely
from tersely.errors import PluginApiError
from tersely.registry.registry import Registry


def face(stated):
    module = types.ModuleType("acme")
    module.tersely_api = stated
    module.tersely_pruners = tersely.hookimpl(lambda: [])
    return module


MAJOR, MINOR = tersely.plugin_api


@pytest.mark.parametrize("stated", [MAJOR, *((MAJOR, minor) for minor in range(MINOR + 1))])
def test_every_minor_version_up_to_the_one_that_is_offered_is_accepted(stated):
    assert Registry().register(face(stated)) == "acme"


@pytest.mark.parametrize(
    ("stated", "spelled"),
    [
        ((MAJOR, MINOR + 1), f"{MAJOR}.{MINOR + 1}"),
        (MAJOR + 1, str(MAJOR + 1)),
        (MAJOR - 1, str(MAJOR - 1)),
        ("1", "'1'"),
        (True, "True"),
        ((1, 1, 0), "(1, 1, 0)"),
    ],
)
def test_everything_else_is_refused_with_both_versions(stated, spelled):
    with pytest.raises(PluginApiError) as caught:
        Registry().register(face(stated))

    assert str(caught.value) == (
        f"acme cannot be registered: {WRITTEN_FOR} {spelled}, {THIS_API} {MAJOR}.{MINOR}; "
        f"{AGREEING_RELEASES}"
    )
