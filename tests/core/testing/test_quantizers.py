"""The contract of quantizers passes a good one and finds every way to break it."""

import pytest

from tersely.testing import QuantizerContract, check_quantizer

SHAPES = "Scale and zero point have the shape of the observed range"
SCALE = "Scales are finite and larger than zero, also for a range of zeros"
ZERO = "Zero points are integers inside the range, or finite where floats are declared"
INTEGERS = "The integers are those of the target's dtype, and the scheme is the target's"
SAME = "The same range gives the same scale and zero point, of its own each time"
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
            f"{FIRST}: scale [[0.75], [0.124755859375], [0.749755859375], [0.0]]",
        ),
        ("HalfZero", ZERO, f"{FIRST}: zero_point [[0.5], [0.5], [0.5], [0.5]]"),
        (
            "OtherDtype",
            INTEGERS,
            f"{FIRST}: expected ('int8', 'symmetric', -127, 127), got ('int7', 'symmetric', -127, "
            "63)",
        ),
        ("Random", SAME, f"{FIRST}: two objects choose differently"),
        ("Writing", UNTOUCHED, f"{FIRST}: the range was written to"),
    ],
)
def test_a_broken_quantizer_is_found(register, failures, sample, check, message):
    assert failures(QuantizerContract(register("quantizer", sample), {}))[check] == message
