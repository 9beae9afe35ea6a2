"""Every plugin of one file in the author's guide meets its contract, so that it can be copied."""

import pytest

import tersely
from tersely.testing import (
    check_exporter,
    check_granularity,
    check_loss,
    check_pruner,
    check_quantizer,
    check_schedule,
)

CHECKS = {
    "pruners": check_pruner,
    "quantizers": check_quantizer,
    "granularities": check_granularity,
    "losses": check_loss,
    "schedules": check_schedule,
    "exporters": check_exporter,
}


@pytest.mark.slow
def test_a_plugin_of_the_guide_meets_its_contract(plugin_file, tmp_path):
    file = tmp_path / plugin_file.caption
    file.write_text(plugin_file.text, encoding="utf-8")
    plugin = tersely.registry().register_file(file)
    try:
        for kind, check in CHECKS.items():
            catalog = getattr(tersely.registry(), kind)
            for name in list(catalog):
                if catalog.record(name).qualified.startswith(f"{plugin}:"):
                    check(name)
    finally:
        tersely.registry().unregister(plugin)
