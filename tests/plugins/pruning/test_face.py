"""What laconic-pruning says of itself."""

import subprocess
import sys

import pytest

import laconic

PRUNERS = ["fpgm", "l1_norm", "l2_norm", "level"]


def test_four_pruners_and_two_schedules_are_known():
    found = laconic.registry()
    records = [found.pruners.record(name) for name in PRUNERS]
    records += [found.schedules.record(name) for name in ("agp", "linear")]
    assert {record.distribution for record in records} == {"laconic-pruning"}


def test_the_face_imports_no_torch():
    code = "import sys, laconic_pruning; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_level_decides_on_elements_by_default_and_the_others_on_output_channels():
    infos = [laconic.registry().pruners.info(name) for name in PRUNERS]
    assert {info.name: info.default_granularity for info in infos} == {
        "fpgm": "output_channel",
        "l1_norm": "output_channel",
        "l2_norm": "output_channel",
        "level": "element",
    }


@pytest.mark.parametrize("name", ["l1_norm", "l2_norm", "level"])
def test_norms_take_every_granularity(name):
    assert laconic.registry().pruners.info(name).granularities is None


def test_fpgm_takes_no_granularity_of_single_elements():
    assert "n_m" not in laconic.registry().pruners.info("fpgm").granularities


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_cites_its_paper(name):
    assert laconic.registry().pruners.info(name).paper
