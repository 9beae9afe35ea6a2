"""What laconic-distillation says of itself."""

import subprocess
import sys

import pytest

import laconic


def test_both_losses_are_known():
    losses = laconic.registry().losses

    assert losses.record("mse").distribution == "laconic-distillation"
    assert losses.record("kl").distribution == "laconic-distillation"


@pytest.mark.parametrize("name", ["mse", "kl"])
def test_the_descriptor_names_the_function(name):
    assert laconic.registry().losses[name].__name__ == name


def test_kl_takes_a_temperature_above_zero():
    options = laconic.registry().losses.info("kl").options

    assert options["properties"]["temperature"]["exclusiveMinimum"] == 0
    assert options["additionalProperties"] is False


def test_the_face_imports_no_torch():
    code = "import sys, laconic_distillation; assert 'torch' not in sys.modules"

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
