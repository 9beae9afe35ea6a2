"""The contract of quantizers passes a good one and finds every way to break it."""

import pytest

from tersely.testing import QuantizerContract, check_quantizer

SHAPES = "Scale and zero point have the shape of the observed range"
SCALE = "Scales are finite and positive, even for a range of zeros"
ZERO = "Zero points are integers in the range, or finite floats if floats are declared"
INTEGERS = "The integers match the target's dtype, and the scheme is the target's"
SAME = "The same range gives the same scale and zero point, in new tensors each time"
UNTOUCHED = "The observed range is not modified"
FIRST = "int8 symmetric, blocks [1, -1]"


def test_a_good_quantizer_passes(register):
    check_quantizer(register("quantizer", "Good"))


@pytest.mark.parametrize(
    ("sample", "check", "message"),
    [
        ("Tupled", SHAPES, f"{FIRST}: expected QParams, got tuple"),
        ("OneScale", SHAPES, f"{FIRST}: scale has shape (), expected (4, 1)"),
        ("OneZero", SHAPES, f"{FIRST}: zero_point has shape (1,), expected (4, 1)"),
        (
            "ZeroScale",
            SCALE,
            f"{FIRST}: the scale is [[0.75], [0.124755859375], [0.749755859375], [0.0]]",
        ),
        ("HalfZero", ZERO, f"{FIRST}: the zero point is [[0.5], [0.5], [0.5], [0.5]]"),
        (
            "OtherDtype",
            INTEGERS,
            f"{FIRST}: expected ('int8', 'symmetric', -127, 127), got ('int7', 'symmetric', -127, "
            "63)",
        ),
        ("Random", SAME, f"{FIRST}: two objects choose different scales or zero points"),
        ("Writing", UNTOUCHED, f"{FIRST}: the observed range was modified"),
    ],
)
def test_a_broken_quantizer_is_found(register, failures, sample, check, message):
    assert failures(QuantizerContract(register("quantizer", sample), {}))[check] == message
