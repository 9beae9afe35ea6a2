"""GPTQ: one update by hand, the reference column by column, and what must hold for any layer."""

import pytest
import torch
from messages.sessions import inputs_make_singular
from torch import nn

import tersely

TINY = 1e-7


def gptq(**options):
    return tersely.registry().quantizers["gptq"](**options)


def random_layer(generator, outputs, inputs):
    mixing = torch.randn(inputs, inputs, generator=generator, dtype=torch.float64)
    batch = torch.randn(4 * inputs, inputs, generator=generator, dtype=torch.float64) @ mixing
    weight = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
    return weight, batch


def reference(weight, inputs, qparams, *, percdamp, order):
    """The paper's equations 2 and 3 as they stand: H^-1 afresh for every column."""
    hessian = inputs.T @ inputs
    hessian += percdamp * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)
    found, values = torch.zeros_like(weight), weight.clone()
    left = order.tolist()
    while left:
        column = left[0]
        inverse = torch.linalg.inv(hessian[left][:, left])
        found[:, column] = tersely.fake_quantize(values, qparams)[:, column]
        error = (values[:, column] - found[:, column]) / inverse[0, 0]
        values[:, left] -= error[:, None] * inverse[0]
        left = left[1:]
    return found


def test_the_column_to_come_makes_up_for_the_first(linear_target, see):
    # X^T X = [[2, 1], [1, 2]]; int4 steps of 1. Column 0 rounds 2.4 to 2, an error of 0.4, and
    # column 1 moves by 0.4 * H01 / H11 = 0.2: 6.4 + 0.2 rounds to 7, where it alone gives 6.
    target = linear_target([[2.4, 6.4, 7.0]])
    inputs = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    quantizer = gptq(percdamp=TINY, act_order=False, search=False)

    solution = quantizer.solve(see(quantizer, target, inputs))

    assert solution.qparams.scale.tolist() == [[1.0]]
    assert solution.tensor.tolist() == [[2.0, 7.0, 7.0]]
    assert solution.input_scale is None


def test_the_largest_inputs_go_first(linear_target, see):
    # X^T X = [[2, 2], [2, 5]]: column 1 goes first and rounds 6.4 to 6; column 0 then moves by
    # 0.4 * H01 / H00 = 0.4: 2.4 + 0.4 rounds to 3.
    target = linear_target([[2.4, 6.4, 7.0]])
    inputs = torch.tensor([[1.0, 2.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    quantizer = gptq(percdamp=TINY, search=False)

    solution = quantizer.solve(see(quantizer, target, inputs))

    assert solution.tensor.tolist() == [[3.0, 6.0, 7.0]]


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("size", [(1, 8), (1, -1), (-1, -1), (2, 4)])
@pytest.mark.parametrize("block_size", [5, 128])
def test_it_agrees_with_the_equations_of_the_paper(
    act_order, scheme, size, block_size, linear_target, see
):
    generator = torch.Generator().manual_seed(3)
    weight, inputs = random_layer(generator, 6, 24)
    target = linear_target(weight, size=size, scheme=scheme)
    quantizer = gptq(block_size=block_size, act_order=act_order, search=False)

    solution = quantizer.solve(see(quantizer, target, inputs))

    lengths = inputs.square().sum(0)
    order = lengths.argsort(descending=True) if act_order else torch.arange(24)
    expected = reference(weight, inputs, solution.qparams, percdamp=0.01, order=order)
    torch.testing.assert_close(solution.tensor, expected)


@pytest.mark.parametrize("search", [False, True])
def test_outputs_are_closer_than_rounding_to_nearest_leaves_them(
    search, linear_target, see, output_error
):
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        weight, inputs = random_layer(generator, 16, 32)
        target = linear_target(weight, size=(1, 16))
        low, high = tersely.block_range(weight, (1, 16))
        nearest = tersely.fake_quantize(weight, tersely.choose_qparams(low, high, target))
        quantizer = gptq(search=search)
        solution = quantizer.solve(see(quantizer, target, inputs))
        found = output_error(target, solution.tensor, inputs)
        assert found < 0.7 * output_error(target, nearest, inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quantizing_the_result_changes_nothing(dtype, linear_target, see):
    generator = torch.Generator().manual_seed(0)
    weight, inputs = random_layer(generator, 8, 16)
    target = linear_target(weight.to(dtype), scheme="affine", dtype="uint8")
    quantizer = gptq()

    solution = quantizer.solve(see(quantizer, target, inputs.float()))

    assert solution.tensor.dtype == dtype
    again = tersely.fake_quantize(solution.tensor, solution.qparams)
    assert torch.equal(again, solution.tensor)


def test_batches_add_up(linear_target, see):
    generator = torch.Generator().manual_seed(0)
    weight, inputs = random_layer(generator, 8, 16)
    target, quantizer = linear_target(weight), gptq()

    at_once = quantizer.solve(see(quantizer, target, inputs))
    in_two = quantizer.solve(see(quantizer, target, inputs[:20], inputs[20:]))

    torch.testing.assert_close(at_once.tensor, in_two.tensor)


def test_inputs_that_are_always_zero_round_to_nearest(linear_target, see):
    target = linear_target([[7.0, 2.4, 2.6]])
    quantizer = gptq()

    solution = quantizer.solve(see(quantizer, target, torch.tensor([[3.0, 0.0, 0.0]])))

    assert solution.tensor.tolist() == [[7.0, 2.0, 3.0]]


def test_masked_weights_stay_masked(linear_target, see):
    generator = torch.Generator().manual_seed(0)
    weight, inputs = random_layer(generator, 8, 16)
    weight[:, ::2] = 0
    target, quantizer = linear_target(weight, scheme="affine"), gptq()

    solution = quantizer.solve(see(quantizer, target, inputs))

    assert bool((solution.tensor[:, ::2] == 0).all())
    assert bool((solution.tensor != 0).any())


def test_the_target_is_left_as_it_is(linear_target, see):
    generator = torch.Generator().manual_seed(0)
    weight, inputs = random_layer(generator, 8, 16)
    quantizer = gptq()
    target = see(quantizer, linear_target(weight), inputs)
    before, gram = weight.clone(), target.observed["gram"].clone()

    quantizer.solve(target)

    assert torch.equal(weight, before)
    assert torch.equal(target.observed["gram"], gram)


def test_a_singular_hessian_is_an_error_that_says_what_to_do(linear_target, see):
    target, quantizer = linear_target(torch.ones(2, 3)), gptq(percdamp=0)
    target = see(quantizer, target, torch.tensor([[1.0, 2.0, 3.0]]))

    with pytest.raises(ValueError, match=inputs_make_singular()):
        quantizer.solve(target)


def test_a_float8_target_is_refused(linear_target, see):
    target, quantizer = linear_target(torch.ones(2, 3), dtype="float8_e4m3fn"), gptq()
    target = see(quantizer, target, torch.eye(3))

    with pytest.raises(
        ValueError,
        match="under_test rounds to integers and float8_e4m3fn is none; write quant_dtype: int8",
    ):
        quantizer.solve(target)


def test_solving_before_calibration_is_refused(linear_target):
    with pytest.raises(tersely.SessionError, match=r"call session.calibrate\(batches\)"):
        gptq().solve(linear_target(torch.ones(2, 3)))


MODULES = [
    (nn.Conv1d(6, 4, 3, padding=1), (2, 6, 12), (1, -1, -1)),
    (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 8, 8), (1, -1, -1, -1)),
    (nn.Conv2d(8, 6, 3, groups=2, stride=2), (2, 8, 9, 9), (1, -1, -1, -1)),
    (nn.Conv2d(8, 6, 3), (2, 8, 9, 9), (1, 4, -1, -1)),
    (nn.Conv3d(2, 4, 2), (2, 2, 5, 5, 5), (1, -1, -1, -1, -1)),
    (nn.ConvTranspose1d(4, 6, 2, stride=2), (2, 4, 20), (-1, 1, -1)),
    (nn.ConvTranspose2d(16, 6, 2, stride=2, groups=2), (2, 16, 9, 9), (-1, 1, -1, -1)),
    (nn.Conv2d(4, 6, 3), (2, 4, 9, 9), (-1, -1, -1, -1)),
]


@pytest.mark.parametrize(("module", "shape", "size"), MODULES)
def test_convolutions_of_every_kind_are_solved(module, shape, size, make_target, see, output_error):
    generator = torch.Generator().manual_seed(0)
    # Neighbours that resemble each other, as in an image.
    inputs = torch.randn(shape, generator=generator).cumsum(-1) + 1
    with torch.no_grad():
        module.weight.copy_(torch.randn(module.weight.shape, generator=generator))
    target = make_target(module, size=size)
    quantizer = gptq(search=False)

    solution = quantizer.solve(see(quantizer, target, inputs))

    low, high = tersely.block_range(target.tensor, size)
    qparams = tersely.choose_qparams(low, high, target)
    assert torch.equal(solution.qparams.scale, qparams.scale)
    nearest = tersely.fake_quantize(target.tensor, qparams)
    found = output_error(target, solution.tensor, inputs)
    assert found < 0.9 * output_error(target, nearest, inputs)
    again = tersely.fake_quantize(solution.tensor, solution.qparams)
    torch.testing.assert_close(again, solution.tensor)


@pytest.mark.parametrize("algorithm", ["gptq", "awq", "smoothquant"])
def test_detach_gives_back_parameters_that_overlap_in_memory(algorithm):
    both = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    before = both.clone()
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    model[0].weight, model[1].weight = nn.Parameter(both[:8]), nn.Parameter(both[4:])
    entry = {"op_types": ["Linear"], "target_names": ["weight"]}
    stage = {"algorithm": algorithm, "config_list": [entry]}
    session = tersely.attach(model, {"quantization": stage})
    session.calibrate([torch.randn(32, 8, generator=torch.Generator().manual_seed(1))])
    session.compress()
    session.detach()
    assert torch.equal(both, before)
