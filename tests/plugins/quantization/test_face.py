"""What laconic-quantization says of itself."""

import subprocess
import sys

import laconic


def test_both_algorithms_are_known():
    quantizers = laconic.registry().quantizers

    assert quantizers.record("ptq").distribution == "laconic-quantization"
    assert quantizers.record("qat").distribution == "laconic-quantization"


def test_ptq_needs_activations_and_qat_training():
    quantizers = laconic.registry().quantizers

    assert quantizers.info("ptq").needs == "activations"
    assert quantizers.info("qat").needs == "training"


def test_the_face_imports_no_torch():
    code = "import sys, laconic_quantization; assert 'torch' not in sys.modules"

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
