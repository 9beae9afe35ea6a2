"""Tests that share a module's fixture run in one process, since the fixture takes seconds."""

import pytest


@pytest.fixture(scope="module")
def shared() -> object:
    return object()


def test_a_test_of_a_shared_fixture_is_in_the_group_of_its_file(
    request: pytest.FixtureRequest, shared: object
) -> None:
    group = "tests/boundaries/test_groups.py"

    assert [mark.args for mark in request.node.iter_markers("xdist_group")] == [(group,)]
    if getattr(request.config.option, "loadgroup", False):  # scheduled by this suffix
        assert request.node.nodeid.endswith(f"@{group}")
