"""Level tables, with numbers by hand and the sixteen levels of NF4."""

import pytest
import torch
from messages.blocks import levels_from_0

import tersely
from tersely.arithmetic.affine import dequantize, fake_quantize, quantize
from tersely.arithmetic.level_tables import levels_problem, padded, without_padding

# Dettmers et al., QLoRA, NeurIPS 2023, appendix E.
NF4 = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
]


def table(levels, scale, *, block_size=None):
    scale = torch.tensor(scale)
    return tersely.QParams(
        scale=scale,
        zero_point=torch.zeros_like(scale, dtype=torch.int32),
        quant_min=0,
        quant_max=15,
        dtype="uint4",
        scheme="symmetric",
        block_size=block_size,
        levels=torch.tensor(levels),
    )


def test_two_blocks_of_64_become_indices_of_nf4_by_their_own_largest_value():
    values = torch.zeros(1, 128)
    values[0, :4] = torch.tensor([2.0, 0.1, -1.6, 0.5])
    values[0, 64:68] = torch.tensor([-0.5, 0.25, 0.02, -0.02])

    found = quantize(values, table(NF4, [[2.0, 0.5]], block_size=(1, 64)))

    # 1, 0.05 (the middle of 0 and 0.0796 is 0.0398), -0.8 (of -1 and -0.6962: -0.848), 0.25.
    assert found[0, :5].tolist() == [15, 8, 1, 10, 7]
    # -1, 0.5 (of 0.4407 and 0.5626: 0.5017), 0.04 (0.0398), -0.04 (of -0.0911 and 0: -0.0455).
    assert found[0, 64:69].tolist() == [0, 12, 8, 7, 7]
    assert found.dtype == torch.int8


def test_indices_are_read_as_levels_times_the_scale_of_their_block():
    qparams = table(NF4, [[2.0, 0.5]], block_size=(1, 2))

    found = dequantize(torch.tensor([[15, 8, 0, 12]]), qparams)

    expected = [2 * NF4[15], 2 * NF4[8], 0.5 * NF4[0], 0.5 * NF4[12]]
    assert found[0].tolist() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_fake_quantizing_is_quantizing_and_reading_in_the_dtype_of_the_value(dtype):
    torch.manual_seed(0)
    values = torch.randn(4, 8).to(dtype)
    qparams = table(NF4, [[2.0, 0.5]] * 4, block_size=(1, 4))

    found = fake_quantize(values, qparams)

    assert found.dtype == dtype
    assert torch.equal(found, dequantize(quantize(values, qparams), qparams).to(dtype))


def test_nan_stays_nan():
    found = fake_quantize(torch.tensor([float("nan"), 1.0]), table([-1.0, 0.0, 1.0], 1.0))

    assert found.isnan().tolist() == [True, False]


def test_the_gradient_passes_as_it_is_unless_it_is_clipped():
    values = torch.tensor([-3.0, -1.0, 0.4, 1.5], requires_grad=True)
    qparams = table([-1.0, 0.0, 1.0], 1.0)

    fake_quantize(values, qparams).sum().backward()
    assert values.grad.tolist() == [1, 1, 1, 1]

    values.grad = None
    fake_quantize(values, qparams, clip_gradient=True).sum().backward()
    assert values.grad.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("clip_gradient", [False, True])
@pytest.mark.parametrize("size", [None, (2, 4)])
def test_a_gradient_of_rows_alone_stays_one(clip_gradient, size):
    weight = torch.full((4, 4), 0.4)
    weight[1] = -3.0
    weight.requires_grad_()
    qparams = table([-1.0, 0.0, 1.0], 1.0 if size is None else [[1.0], [1.0]], block_size=size)

    values = fake_quantize(weight, qparams, clip_gradient=clip_gradient)
    torch.nn.functional.embedding(torch.tensor([1, 2]), values, sparse=True).sum().backward()

    assert weight.grad.is_sparse
    expected = torch.tensor([0.0, 0.0 if clip_gradient else 1.0, 1.0, 0.0])
    assert torch.equal(weight.grad.to_dense(), expected[:, None].expand(4, 4))


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # of torch's vmap
@pytest.mark.parametrize("clip_gradient", [False, True])
def test_a_gradient_for_each_sample_is_that_of_the_sample_alone(clip_gradient):
    samples = torch.tensor([[-3.0, 0.4], [0.9, 1.5]])

    def loss(sample):
        found = fake_quantize(sample, table([-1.0, 0.0, 1.0], 1.0), clip_gradient=clip_gradient)
        return found.square().sum()

    found = torch.func.vmap(torch.func.grad(loss))(samples)

    # Twice the level: -1, 0 and 1, 1; nothing where the value lies outside of the table.
    expected = torch.tensor([[-2.0, 0.0], [2.0, 2.0]])
    if clip_gradient:
        expected[0, 0] = expected[1, 1] = 0
    assert torch.equal(found, expected)


def test_a_longer_table_gives_the_same_values_and_is_read_as_it_was():
    levels = torch.tensor([-1.0, -0.25, 0.5])

    longer = padded(levels, 8)

    assert longer.tolist() == [-1.0, -0.25, *[0.5] * 6]
    assert torch.equal(without_padding(longer), levels)
    values = torch.linspace(-2, 2, 41)
    plain = fake_quantize(values, table([-1.0, -0.25, 0.5], 1.0))
    assert torch.equal(fake_quantize(values, table(longer.tolist(), 1.0)), plain)


PROBLEMS = {
    "a list": ([-1.0, 1.0], "levels must be a 1-dim tensor of floats, found list"),
    "a matrix": (torch.zeros(2, 2), "levels must be a 1-dim tensor of floats, found [2, 2]"),
    "one level": (
        torch.zeros(1),
        "levels must be two or more finite values in ascending order",
    ),
    "levels that fall": (
        torch.tensor([0.0, 1.0, 0.5]),
        "levels must be two or more finite values in ascending order",
    ),
    "more than the type counts": (
        torch.arange(17.0),
        f"{levels_from_0(17, 'uint5')} or wider",
    ),
}


@pytest.mark.parametrize(("levels", "problem"), PROBLEMS.values(), ids=list(PROBLEMS))
def test_what_is_no_table_of_levels_is_said(levels, problem):
    assert levels_problem(levels, 0, 15) == problem


def test_a_signed_type_counts_no_levels():
    assert levels_problem(torch.arange(4.0), -7, 7) == f"{levels_from_0(4, 'uint2')} or wider"
