import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from messages.blocks import ONE_PER_BLOCK
from messages.documents import INTEGER_DTYPES
from torch import nn

from tersely.arithmetic import levels
from tersely.arithmetic.affine import dequantize, fake_quantize, quantize
from tersely.arithmetic.blocks import Blocks
from tersely.arithmetic.qparams import QParams
from tersely.arithmetic.quantized_types import Range, quantized_range
from tersely.arithmetic.ranges import block_range
from tersely.arithmetic.scales import SMALLEST_SCALE, choose_qparams
from tersely.contracts.quantizer import QuantizationTarget
from tersely.contracts.settings import QuantizationSetting
from tersely.contracts.target_plan import Origin, TargetPlan
from tersely.errors import CalibrationError


def target(dtype="int8", scheme="symmetric", size=(-1, -1)):
    limits = quantized_range(dtype)
    plan = TargetPlan(
        module="fc",
        target="weight",
        kind="parameter",
        method="quantization",
        algorithm="ptq",
        setting=QuantizationSetting(),
        origin=Origin("quantization.config_list[0]"),
    )
    return QuantizationTarget(
        plan=plan,
        quant_min=limits.quant_min,
        quant_max=limits.quant_max,
        dtype=dtype,
        scheme=scheme,
        blocks=Blocks(size),
        module=nn.Identity(),
    )


def qparams(scale, zero_point=0, *, dtype="int8", block_size=None):
    limits = quantized_range(dtype)
    return QParams(
        scale=torch.as_tensor(scale),
        zero_point=torch.as_tensor(zero_point),
        quant_min=limits.quant_min,
        quant_max=limits.quant_max,
        dtype=dtype,
        scheme="affine",
        block_size=block_size,
    )


def choose(low, high, **kwargs):
    return choose_qparams(torch.as_tensor(low), torch.as_tensor(high), target(**kwargs))


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("int8", -127, 127),
        ("int4", -7, 7),
        ("int2", -1, 1),
        ("int16", -32767, 32767),
        ("uint8", 0, 255),
        ("uint4", 0, 15),
        ("uint1", 0, 1),
        ("uint16", 0, 65535),
        ("int32", -2147483520, 2147483520),
        ("float8_e4m3fn", -448, 448),
        ("float8_e5m2", -57344, 57344),
    ],
)
def test_a_type_has_its_range(dtype, low, high):
    assert quantized_range(dtype) == Range(low, high)


@pytest.mark.parametrize("dtype", ["int1", "int17", "uint0", "uint17", "int", "int08", "float16"])
def test_an_unknown_type_is_an_error(dtype):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        quantized_range(dtype)
    assert str(caught.value) == (
        f"quant_dtype {dtype!r}: expected {INTEGER_DTYPES}, float8_e4m3fn or float8_e5m2"
    )


def test_symmetric_int8_divides_the_largest_magnitude_by_127():
    found = choose(-2.0, 12.7)
    assert found.scale.item() == pytest.approx(0.1)
    assert found.zero_point.item() == 0


def test_symmetric_uint8_has_its_zero_at_128():
    found = choose(-2.0, 12.75, dtype="uint8")
    assert found.scale.item() == pytest.approx(0.1)
    assert found.zero_point.item() == 128


def test_affine_uint8_places_zero_where_it_falls():
    found = choose(-5.0, 20.5, dtype="uint8", scheme="affine")
    assert found.scale.item() == pytest.approx(0.1)
    assert found.zero_point.item() == 50


def test_affine_int8_counts_its_zero_from_minus_127():
    found = choose(-5.4, 20.0, dtype="int8", scheme="affine")
    assert found.scale.item() == pytest.approx(0.1)
    assert found.zero_point.item() == -127 + 54


def test_a_range_above_zero_is_widened_to_zero():
    found = choose(5.0, 25.5, dtype="uint8", scheme="affine")
    assert found.scale.item() == pytest.approx(0.1)
    assert found.zero_point.item() == 0


def test_a_range_below_zero_is_widened_to_zero():
    found = choose(-25.5, -5.0, dtype="uint8", scheme="affine")
    assert found.scale.item() == pytest.approx(0.1)
    assert found.zero_point.item() == 255


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
def test_an_all_zero_tensor_gets_the_smallest_scale(scheme):
    assert choose(0.0, 0.0, scheme=scheme).scale.item() == SMALLEST_SCALE


def test_float8_has_a_scale_and_no_zero_point():
    found = choose(-896.0, 3.0, dtype="float8_e4m3fn", scheme="affine")
    assert found.scale.item() == 2.0
    assert found.zero_point.item() == 0


def test_every_block_has_its_own_scale():
    found = choose([[-1.27], [-2.54]], [[0.0], [0.0]], size=(1, -1))
    assert found.scale.shape == (2, 1)
    assert found.scale.flatten().tolist() == pytest.approx([0.01, 0.02])
    assert found.block_size == (1, -1)


def test_one_block_for_the_tensor_has_a_scale_without_dimensions():
    found = choose([[-1.27]], [[0.0]], size=(-1, -1))
    assert found.scale.shape == ()
    assert found.block_size is None


def test_zero_points_are_integers():
    assert choose(-1.0, 2.0, scheme="affine").zero_point.dtype == torch.int32


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_scales_are_float32_or_as_wide_as_the_range(dtype, expected):
    low, high = torch.tensor(-1.0, dtype=dtype), torch.tensor(1.0, dtype=dtype)
    assert choose_qparams(low, high, target()).scale.dtype == expected


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (math.inf, -math.inf, "inf to -inf"),
        (math.nan, 1.0, "nan to 1.0"),
        (0.0, math.inf, "0.0 to inf"),
    ],
)
def test_a_range_nothing_was_seen_in_is_an_error(low, high, shown):
    with pytest.raises(CalibrationError) as caught:
        choose([[-1.0], [low]], [[1.0], [high]], size=(1, -1))
    assert str(caught.value) == (
        f"fc.weight: 1 of its 2 observed ranges are unusable (the first is {shown}, at flat index "
        "1); calibrate with data that reaches it, and check for NaN"
    )


def test_a_range_whose_width_overflows_is_usable():
    # 120000 is beyond float16, whose largest number is 65504.
    low, high = (torch.tensor(end, dtype=torch.float16) for end in (-60000.0, 60000.0))
    assert choose_qparams(low, high, target()).scale.item() == pytest.approx(60000 / 127)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_scale_is_chosen_and_used_in_a_compiled_forward():
    how = target("uint8", "affine", (1, -1))

    def dynamic(values):
        low, high = block_range(values, (1, -1))
        return fake_quantize(values, choose_qparams(low, high, how))

    values = torch.randn(4, 8)
    compiled = torch.compile(dynamic, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(values), dynamic(values))


def test_values_are_rounded_half_to_even():
    found = quantize(torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5]), qparams(1.0))
    assert found.tolist() == [0, 2, 2, 0, -2]


def test_values_outside_the_range_are_clamped():
    assert quantize(torch.tensor([-500.0, 500.0]), qparams(1.0)).tolist() == [-127, 127]


def test_the_zero_point_is_added_after_rounding():
    assert quantize(torch.tensor([0.5]), qparams(1.0, 3, dtype="uint8")).tolist() == [3]


@pytest.mark.parametrize(
    ("dtype", "storage"),
    [
        ("int4", torch.int8),
        ("int8", torch.int8),
        ("uint8", torch.uint8),
        ("int9", torch.int16),
        ("uint16", torch.int32),
        ("float8_e5m2", torch.float8_e5m2),
    ],
)
def test_quantized_values_take_the_smallest_type_that_holds_the_range(dtype, storage):
    assert quantize(torch.zeros(2), qparams(1.0, dtype=dtype)).dtype == storage


def test_integers_are_taken_back_to_values():
    levels = torch.tensor([130, 128, 126], dtype=torch.uint8)
    assert dequantize(levels, qparams(0.5, 128, dtype="uint8")).tolist() == [1.0, 0.0, -1.0]


def test_scales_of_blocks_apply_to_their_elements():
    scale = torch.tensor([[1.0, 10.0]])
    found = fake_quantize(
        torch.full((2, 4), 14.0),
        qparams(scale, torch.zeros(1, 2, dtype=torch.int32), block_size=(2, 2)),
    )
    assert found.tolist() == [[14.0, 14.0, 10.0, 10.0]] * 2


def test_float8_rounds_to_the_nearest_of_its_values():
    # e4m3 has 3 bits of mantissa: between 16 and 32 it counts by 2.
    found = fake_quantize(torch.tensor([17.5, 1000.0]), qparams(1.0, dtype="float8_e4m3fn"))
    assert found.tolist() == [18.0, 448.0]


def test_the_gradient_passes_straight_through():
    tensor = torch.tensor([0.3, 500.0], requires_grad=True)
    fake_quantize(tensor, qparams(1.0)).backward(torch.tensor([2.0, 3.0]))
    assert tensor.grad.tolist() == [2.0, 3.0]


def test_a_clipped_gradient_stops_outside_the_range():
    tensor = torch.tensor([127.0, 127.2, -127.0, -500.0], requires_grad=True)
    fake_quantize(tensor, qparams(1.0), clip_gradient=True).sum().backward()
    assert tensor.grad.tolist() == [1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_fake_quantized_values_keep_their_dtype(dtype):
    assert fake_quantize(torch.ones(3, dtype=dtype), qparams(0.5)).dtype == dtype


def test_a_bfloat16_tensor_is_quantized_in_the_scales_precision():
    # 1.0 / 0.00787 is 127.06; a bfloat16 quotient near 127 is good to half a step only.
    tensor = torch.tensor([0.4980], dtype=torch.bfloat16)
    expected = round(tensor.item() / 0.00393)
    assert quantize(tensor, qparams(0.00393, dtype="int9")).item() == expected


def test_a_tensor_that_lies_apart_in_memory_is_quantized_alike():
    tensor = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    found = choose_qparams(
        tensor.amin(1, keepdim=True), tensor.amax(1, keepdim=True), target(size=(1, -1))
    )
    apart = tensor.T.contiguous().T
    assert torch.equal(fake_quantize(apart, found), fake_quantize(tensor, found))


@pytest.mark.parametrize("shape", [(0, 4), ()])
def test_empty_and_scalar_tensors_keep_their_shape(shape):
    assert fake_quantize(torch.zeros(shape), qparams(1.0)).shape == shape


# torch's tracer makes an instance of torch.autograd.Function, of which torch warns.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_fake_quantization_compiles_into_one_graph():
    compiled = torch.compile(fake_quantize, backend="eager", fullgraph=True)
    tensor, how = torch.randn(4, 4), qparams(0.1)
    assert torch.equal(compiled(tensor, how), fake_quantize(tensor, how))


DTYPES = [
    *(f"int{bits}" for bits in range(2, 17)),
    *(f"uint{bits}" for bits in range(1, 17)),
    "float8_e4m3fn",
    "float8_e5m2",
]
SIZES = {"whole": (-1, -1), "channel": (1, -1), "inner": (-1, 1), "group": (1, 4), "block": (2, 4)}


@st.composite
def quantized(draw):
    """Values that include zero, and how they are quantized in blocks by their range."""
    rows, columns = draw(st.sampled_from([2, 4])), draw(st.sampled_from([4, 8]))
    number = st.floats(-1e3, 1e3, width=32)
    values = draw(st.lists(number, min_size=rows * columns, max_size=rows * columns))
    tensor = torch.tensor(values).view(rows, columns)
    tensor[0, 0] = 0
    size = draw(st.sampled_from(list(SIZES.values())))
    scheme = draw(st.sampled_from(["symmetric", "affine"]))
    how = target(draw(st.sampled_from(DTYPES)), scheme, size)
    return tensor, choose_qparams(*block_range(tensor, size), how)


def bits_of(tensor):
    return tensor.contiguous().view(torch.int32)


@settings(deadline=None)
@given(quantized())
def test_zero_stays_zero_and_a_second_pass_changes_nothing(case):
    tensor, how = case
    once = fake_quantize(tensor, how)
    assert once[0, 0] == 0
    assert torch.equal(fake_quantize(once, how), once)


@settings(deadline=None, max_examples=300)
@given(quantized())
def test_integers_taken_back_are_the_fake_quantized_values_bit_for_bit(case):
    tensor, how = case
    expected = bits_of(fake_quantize(tensor, how))
    assert torch.equal(bits_of(dequantize(quantize(tensor, how), how)), expected)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("dtype", ["int8", "uint4", "float8_e4m3fn"])
@pytest.mark.parametrize("largest", [1, 3, 5, 8, 64])
def test_pieces_of_any_size_make_the_same_integers_and_values(monkeypatch, size, dtype, largest):
    tensor = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    how = choose_qparams(*block_range(tensor, size), target(dtype, "affine", size))
    expected = bits_of(fake_quantize(tensor, how))
    monkeypatch.setattr(levels, "_LARGEST_PIECE", largest)
    for values in (tensor, tensor.T.contiguous().T):
        assert torch.equal(bits_of(fake_quantize(values, how)), expected)
        assert torch.equal(bits_of(dequantize(quantize(values, how), how)), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_integers_of_other_dtypes_taken_back_are_the_fake_quantized_values(dtype):
    tensor = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    how = choose_qparams(tensor.min().float(), tensor.max().float(), target("int16"))
    expected = fake_quantize(tensor, how)
    assert torch.equal(dequantize(quantize(tensor, how), how).to(dtype), expected)


def test_a_scale_that_broadcasts_needs_no_block_size():
    tensor = torch.tensor([[[14.0, 14.0]] * 3] * 2)
    how = qparams(torch.tensor([1.0, 10.0]), torch.tensor([0, 0]))
    assert quantize(tensor, how).tolist() == [[[14, 1]] * 3] * 2
    assert dequantize(quantize(tensor, how), how).tolist() == [[[14.0, 10.0]] * 3] * 2
    assert fake_quantize(tensor, how).tolist() == [[[14.0, 10.0]] * 3] * 2


@pytest.mark.parametrize("function", [quantize, dequantize, fake_quantize])
def test_parameters_of_other_blocks_are_an_error(function):
    how = qparams(torch.ones(3, 1), torch.zeros(3, 1), block_size=(1, -1))
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        function(torch.ones(2, 4), how)
    assert str(caught.value) == f"{ONE_PER_BLOCK}, shape (2, 1), got (3, 1)"


BLOCK_SIZES = {"tensor": None, "out_channel": (1, -1), "block4x4": (4, 4)}


def has_an_operator(case):
    return case["fn"] in ("clamp_round", "qat_clamp_round", "lsq")


@pytest.mark.golden("quant_ops.pt", select=has_an_operator)
def test_values_and_gradients_agree_with_the_reference(case):
    how = QParams(
        scale=case["scale"],
        zero_point=case["zero_point"],
        quant_min=case["qmin"],
        quant_max=case["qmax"],
        dtype=case["dtype"],
        scheme="affine",
        block_size=BLOCK_SIZES[case["granularity"]],
    )
    tensor = case["x"].clone().requires_grad_()
    found = fake_quantize(tensor, how, clip_gradient=case["fn"] != "clamp_round")
    found.backward(case["grad_out"])
    assert torch.equal(found, case["y"])
    assert torch.equal(tensor.grad, case["grad_x"])


def observes_a_range(case):
    return case["algo"] in ("PtqQuantizer", "QATQuantizer")


@pytest.mark.golden("quant.pt", select=observes_a_range)
def test_scales_and_zero_points_agree_with_the_reference(case):
    for targets in case["calibration"].values():
        for values in targets.values():
            found = choose_qparams(
                values["tracked_min"],
                values["tracked_max"],
                target(
                    values["quant_dtype"],
                    values["quant_scheme"] or "symmetric",
                    size=(1,) * values["scale"].dim(),
                ),
            )
            assert torch.equal(found.scale, values["scale"])
            assert torch.equal(found.zero_point.float(), values["zero_point"])


def test_a_float_zero_point_is_added_before_rounding():
    half = qparams(1.0, 0.5, dtype="uint4")
    # 0.9 and 1.7, rounded; added afterwards it would be cut off.
    assert quantize(torch.tensor([0.4, 1.2]), half).tolist() == [1, 2]
