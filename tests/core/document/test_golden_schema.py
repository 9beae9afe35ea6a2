"""The reference implementation's verdict on config lists."""

import pytest

import tersely
from tersely.document.load import parse_config_list


@pytest.fixture(autouse=True)
def block_lists_in_their_long_form(registry):
    """What the cases use beyond the granularities of the other tests."""

    class Extra:
        @tersely.hookimpl
        def tersely_granularities(self):
            values = {"type": "array", "prefixItems": [{"type": "array"}], "minItems": 1}
            info = tersely.GranularityInfo(name="long", implementation="a:B", values=values)
            return [info]

    registry.register(Extra(), name="long-blocks")


@pytest.mark.golden("schema.json")
def test_the_same_entries_are_valid(case):
    try:
        parse_config_list(case["mode"], [case["config"]])
        valid = True
    except tersely.ConfigError:
        valid = False

    assert valid == case["valid"]
