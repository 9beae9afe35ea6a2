"""What tersely-quantization says of itself."""

import subprocess
import sys

import pytest

import tersely

NAMES = ["bnn", "dorefa", "lsq", "lsq_plus", "ptq", "qat"]


@pytest.mark.parametrize("name", NAMES)
def test_every_algorithm_is_known_with_its_paper(name):
    quantizers = tersely.registry().quantizers

    assert quantizers.record(name).distribution == "tersely-quantization"
    assert quantizers.info(name).paper


def test_ptq_needs_activations_and_the_others_training():
    infos = [tersely.registry().quantizers.info(name) for name in NAMES]

    assert {info.name: info.needs for info in infos} == {
        name: "activations" if name == "ptq" else "training" for name in NAMES
    }


def test_dorefa_and_bnn_decide_on_the_whole_tensor_only():
    for name in ("dorefa", "bnn"):
        info = tersely.registry().quantizers.info(name)
        assert (info.granularities, info.default_granularity) == ((), "tensor")


def test_bnn_takes_no_buffers():
    kinds = tersely.registry().quantizers.info("bnn").target_kinds

    assert kinds == ("parameter", "input", "output")


def test_the_face_imports_no_torch():
    code = "import sys, tersely_quantization; assert 'torch' not in sys.modules"

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
