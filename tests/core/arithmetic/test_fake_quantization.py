import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from messages.blocks import ONE_PER_BLOCK
from messages.planning import INDIVISIBLE
from torch import nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tersely.arithmetic import levels
from tersely.arithmetic.fake_quantization import fake_quantize_flat

INT8 = {"quant_min": -127, "quant_max": 127}
UINT8 = {"quant_min": 0, "quant_max": 255}

# torch's tracer makes an instance of torch.autograd.Function, of which torch warns.
compiles = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


def steps_of(lowest, highest):
    """Positions on the grid, at most 0.45 of a step from an integer; exact on the edges."""
    whole = st.integers(lowest - 20, highest + 20)
    beside = st.floats(-0.45, 0.45)
    return st.tuples(whole, beside).map(
        lambda pair: float(pair[0] if pair[0] in (lowest, highest) else sum(pair))
    )


@settings(deadline=None)
@given(
    st.lists(steps_of(-127, 127), min_size=1, max_size=30),
    st.floats(2**-10, 8, width=32),
    st.integers(-127, 127),
)
def test_values_and_gradients_agree_with_torch_per_tensor(steps, scale, zero_point):
    scale, zero_point = torch.tensor(scale), torch.tensor(zero_point, dtype=torch.int32)
    values = (torch.tensor(steps) - zero_point) * scale
    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    found = fake_quantize_flat(ours, scale, zero_point, **INT8, clip_gradient=True)
    expected = torch.fake_quantize_per_tensor_affine(theirs, scale, zero_point, -127, 127)
    gradient = torch.arange(1.0, len(steps) + 1)
    found.backward(gradient)
    expected.backward(gradient)
    assert torch.equal(found, expected)
    # An edge times its scale may come back a hair outside.
    is_edge = torch.tensor([step in (-127, 127) for step in steps])
    assert torch.equal(ours.grad[~is_edge], theirs.grad[~is_edge])


@pytest.mark.parametrize("channel", [0, 1])
def test_values_and_gradients_agree_with_torch_per_channel(channel):
    generator = torch.Generator().manual_seed(0)
    size = [1, 1, 1]
    size[channel] = 6
    steps = torch.randint(-20, 275, (6, 6, 5), generator=generator)
    beside = torch.rand(6, 6, 5, generator=generator) * 0.9 - 0.45
    scale = torch.rand(6, generator=generator) + 0.01
    zero_point = torch.tensor([0, 1, 7, 128, 254, 255], dtype=torch.int32)
    # Within half a step of an edge torch goes by the rounded value and we do not.
    beside[(steps <= 0) | (steps >= 255)] = 0
    steps = steps.clone()
    steps[steps == 0], steps[steps == 255] = 1, 254
    values = (steps + beside - zero_point.view(size)) * scale.view(size)
    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    found = fake_quantize_flat(
        ours, scale.view(size), zero_point.view(size), **UINT8, clip_gradient=True
    )
    expected = torch.fake_quantize_per_channel_affine(theirs, scale, zero_point, channel, 0, 255)
    gradient = torch.randn(6, 6, 5, generator=generator)
    found.backward(gradient)
    expected.backward(gradient)
    assert torch.equal(found, expected)
    assert torch.equal(ours.grad, theirs.grad)
    assert (ours.grad == 0).any()


@pytest.mark.parametrize("zero_point", [0, 1, 2])
def test_half_a_step_rounds_to_even_before_the_zero_point_is_added(zero_point):
    # round(0.5) + 1 - 1 is 0; were the zero point added first, round(1.5) - 1 would be 1.
    value, scale = torch.tensor([0.5, 1.5]), torch.tensor(1.0)
    zero_point = torch.tensor(zero_point, dtype=torch.int32)
    assert fake_quantize_flat(value, scale, zero_point, **UINT8).tolist() == [0.0, 2.0]
    theirs = torch.fake_quantize_per_tensor_affine(value, scale, zero_point, 0, 255)
    assert theirs.tolist() == [0.0, 2.0]


def test_half_a_step_is_exact_where_torch_multiplies_by_the_rounded_inverse():
    # 37.5 / 15 is 2.5, to even 2; 37.5 times the float32 next to 1/15 is a hair above 2.5.
    value, scale = torch.tensor([37.5]), torch.tensor(15.0)
    assert fake_quantize_flat(value, scale, None, **INT8).tolist() == [30.0]
    assert torch.fake_quantize_per_tensor_affine(value, 15.0, 0, -127, 127).tolist() == [45.0]


def test_the_gradient_is_clipped_where_the_unrounded_value_is_outside_and_torch_asks_the_rounded():
    ours = torch.tensor([127.0, 127.3, -127.3], requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    fake_quantize_flat(ours, torch.tensor(1.0), None, **INT8, clip_gradient=True).sum().backward()
    torch.fake_quantize_per_tensor_affine(theirs, 1.0, 0, -127, 127).sum().backward()
    assert ours.grad.tolist() == [1.0, 0.0, 0.0]
    assert theirs.grad.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("limits", [(-1, 1), (-7, 7), (0, 1), (0, 255), (-32767, 32767)])
def test_the_edges_are_inside_and_the_next_numbers_are_not(limits, dtype):
    low, high = (torch.tensor(float(limit), dtype=dtype) for limit in limits)
    infinite = torch.tensor(float("inf"), dtype=dtype)
    values = torch.stack(
        [torch.nextafter(low, -infinite), low, high, torch.nextafter(high, infinite)]
    ).requires_grad_()
    found = fake_quantize_flat(
        values,
        torch.tensor(1.0, dtype=dtype),
        None,
        quant_min=limits[0],
        quant_max=limits[1],
        clip_gradient=True,
    )
    found.sum().backward()
    assert values.grad.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_the_zero_point_moves_where_the_gradient_stops():
    # Levels 0 to 255 around 100: values -100 to 155.
    value = torch.tensor([-101.0, -100.0, 155.0, 156.0], requires_grad=True)
    found = fake_quantize_flat(
        value, torch.tensor(1.0), torch.tensor(100), **UINT8, clip_gradient=True
    )
    found.sum().backward()
    assert value.grad.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_a_straight_through_gradient_is_not_copied():
    value = torch.randn(4, requires_grad=True)
    gradient = torch.randn(4)
    found = fake_quantize_flat(value, torch.tensor(0.1), None, **INT8)
    (passed,) = torch.autograd.grad(found, value, gradient)
    assert passed.data_ptr() == gradient.data_ptr()


def saved_by(function):
    saved = []

    def keep(tensor):
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        function()
    return saved


def test_nothing_is_saved_for_a_straight_through_gradient():
    value = torch.randn(4, requires_grad=True)
    assert saved_by(lambda: fake_quantize_flat(value, torch.tensor(0.1), None, **INT8)) == []


def test_a_clipped_gradient_saves_the_value_itself_and_the_scale():
    value, scale = torch.randn(4, 6, requires_grad=True), torch.rand(4, 2) + 0.01
    saved = saved_by(
        lambda: fake_quantize_flat(value, scale, None, **INT8, size=(1, 3), clip_gradient=True)
    )
    assert [tensor.data_ptr() for tensor in saved] == [value.data_ptr(), scale.data_ptr()]


class Allocations(TorchDispatchMode):
    """Counts the memory areas of at least one size that operations return."""

    def __init__(self, size):
        super().__init__()
        self.size, self.found = size, {}

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        before = {
            leaf.data_ptr() for leaf in tree_leaves(arguments) if isinstance(leaf, torch.Tensor)
        }
        for leaf in tree_leaves(result):
            if leaf.untyped_storage().nbytes() >= self.size and leaf.data_ptr() not in before:
                self.found[leaf.data_ptr()] = leaf
        return result


@pytest.mark.parametrize("size", [(-1, -1), (1, -1), (1, 8), (4, 4)])
def test_the_result_is_the_only_allocation_of_the_values_size(size):
    value = torch.randn(32, 64)
    counts = [1 if one == -1 else n // one for one, n in zip(size, value.shape, strict=True)]
    scale, zero_point = torch.rand(counts) + 0.01, torch.ones(counts, dtype=torch.int32)
    with Allocations(value.nbytes) as allocations:
        fake_quantize_flat(value, scale, zero_point, **UINT8, size=size)
    assert len(allocations.found) == 1


def test_blocks_that_a_scale_implies_need_no_size():
    value = torch.full((2, 4), 14.0)
    found = fake_quantize_flat(value, torch.tensor([[1.0, 10.0]]), None, **INT8)
    assert found.tolist() == [[14.0, 14.0, 10.0, 10.0]] * 2


def test_a_scale_of_channels_broadcasts_from_the_last_dimension():
    value = torch.full((2, 3, 2), 14.0)
    found = fake_quantize_flat(value, torch.tensor([1.0, 10.0]), None, **INT8)
    assert found.tolist() == [[[14.0, 10.0]] * 3] * 2


def test_a_scale_that_is_not_one_per_block_is_an_error():
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        fake_quantize_flat(torch.ones(2, 4), torch.ones(2, 4), None, **INT8, size=(1, 2))
    assert str(caught.value) == f"{ONE_PER_BLOCK}, shape (2, 2), got (2, 4)"


def test_a_scale_that_does_not_divide_the_shape_is_an_error():
    with pytest.raises(ValueError, match=f"block size \\[-1, 3\\] {INDIVISIBLE} \\[1, 10\\]"):
        fake_quantize_flat(torch.ones(1, 10), torch.ones(1, 3), None, **INT8)


def test_the_result_can_be_changed_in_place():
    value = torch.tensor([[-2.4, 3.4]], requires_grad=True)
    found = fake_quantize_flat(value, torch.ones(1, 1), None, **INT8).relu_()
    found.sum().backward()
    assert found.tolist() == [[0.0, 3.0]]
    assert value.grad.tolist() == [[0.0, 1.0]]


def test_the_result_of_blocks_can_be_changed_in_place():
    value = torch.tensor([[-2.4, 3.4, 8.0, -9.0]], requires_grad=True)
    found = fake_quantize_flat(value, torch.ones(1, 2), None, **INT8, size=(1, 2)).relu_()
    found.sum().backward()
    assert found.tolist() == [[0.0, 3.0, 8.0, 0.0]]
    assert value.grad.tolist() == [[0.0, 1.0, 1.0, 0.0]]


def test_values_that_lie_apart_in_memory_keep_their_layout():
    value = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    scale = torch.rand(1, 3, 1, 1) + 0.01
    found = fake_quantize_flat(value, scale, None, **INT8)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, fake_quantize_flat(value.contiguous(), scale, None, **INT8))


def test_blocks_of_values_that_lie_apart_in_memory_are_quantized_alike():
    value = torch.randn(6, 4).T
    scale = torch.rand(2, 2) + 0.01
    found = fake_quantize_flat(value, scale, None, **INT8, size=(2, 3))
    assert torch.equal(
        found, fake_quantize_flat(value.contiguous(), scale, None, **INT8, size=(2, 3))
    )


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0,)])
@pytest.mark.parametrize("clips", [False, True])
def test_no_values_have_no_gradient(shape, clips):
    value = torch.zeros(shape, requires_grad=True)
    found = fake_quantize_flat(value, torch.tensor(1.0), None, **INT8, clip_gradient=clips)
    found.sum().backward()
    assert found.shape == value.grad.shape == shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    value = torch.tensor([0.4980, 600.0], dtype=dtype, requires_grad=True)
    scale = torch.tensor(0.00393)
    found = fake_quantize_flat(
        value, scale, None, quant_min=-255, quant_max=255, clip_gradient=True
    )
    found.backward(torch.tensor([2.0, 3.0], dtype=dtype))
    level = round(value[0].item() / scale.item())
    assert found.tolist() == [(level * scale).to(dtype).item(), (255 * scale).to(dtype).item()]
    assert value.grad.dtype == dtype
    assert value.grad.tolist() == [2.0, 0.0]


def test_a_scale_that_was_cast_to_half_precision_still_counts_beyond_256():
    # bfloat16 has 8 bits: as a bfloat16 quotient 257 would be 256 or 258.
    scale = torch.tensor(2**-8, dtype=torch.bfloat16)
    value = torch.tensor([257 / 256])
    found = fake_quantize_flat(value, scale, None, quant_min=-32767, quant_max=32767)
    assert torch.equal(found, value)


def test_float8_is_the_nearest_of_its_values_and_clips_at_the_largest():
    value = torch.tensor([17.5, 449.0, -448.0], requires_grad=True)
    found = fake_quantize_flat(
        value,
        torch.tensor(1.0),
        None,
        quant_min=-448,
        quant_max=448,
        dtype="float8_e4m3fn",
        clip_gradient=True,
    )
    found.sum().backward()
    assert found.tolist() == [18.0, 448.0, -448.0]
    assert value.grad.tolist() == [1.0, 0.0, 1.0]


class Layer(nn.Module):
    """Multiplies by a weight that is quantized in blocks of four inputs."""

    def __init__(self, *, clips):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(6, 8, generator=generator))
        self.register_buffer("scale", torch.rand(6, 2, generator=generator) * 0.01 + 0.005)
        self.register_buffer("zero_point", torch.arange(12, dtype=torch.int32).view(6, 2))
        self.clips = clips

    def forward(self, inputs):
        return inputs @ self.quantized().T

    def quantized(self):
        return fake_quantize_flat(
            self.weight,
            self.scale,
            self.zero_point,
            **INT8,
            size=(1, 4),
            clip_gradient=self.clips,
        )


def gradients_of(module, inputs):
    module.zero_grad()
    module(inputs).square().sum().backward()
    return module.weight.grad.clone()


@compiles
@pytest.mark.parametrize("clips", [False, True])
def test_it_compiles_forward_and_backward_into_one_graph(clips):
    layer, inputs = Layer(clips=clips), torch.randn(3, 8)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(inputs), layer(inputs))
    expected = gradients_of(layer, inputs)
    layer.zero_grad()
    compiled(inputs).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, expected)
    assert (expected == 0).any() == clips


@compiles
@pytest.mark.parametrize("strict", [False, True])
def test_it_exports_with_a_batch_of_any_size(strict):
    layer = Layer(clips=True)
    batch = {0: torch.export.Dim("batch")}
    exported = torch.export.export(
        layer, (torch.randn(3, 8),), dynamic_shapes=(batch,), strict=strict
    )
    inputs = torch.randn(5, 8)
    assert torch.equal(exported.module()(inputs), layer(inputs))


def test_it_is_differentiated_by_functions():
    layer = Layer(clips=True)

    def loss(weight, inputs):
        return torch.func.functional_call(layer, {"weight": weight}, (inputs,)).square().sum()

    inputs = torch.randn(3, 8)
    found = torch.func.grad(loss)(layer.weight.detach(), inputs)
    torch.testing.assert_close(found, gradients_of(layer, inputs))


def test_a_clipped_gradient_has_a_gradient():
    # Of y^2 it is 2 y dy/dx; of that again 2 (dy/dx)^2 where nothing is clipped.
    value = torch.tensor([2.2, 300.0], requires_grad=True)
    found = fake_quantize_flat(value, torch.tensor(1.0), None, **INT8, clip_gradient=True)
    (first,) = torch.autograd.grad(found.square().sum(), value, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), value)
    assert first.tolist() == [4.0, 0.0]
    assert second.tolist() == [2.0, 0.0]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_a_clipped_gradient_has_a_derivative_in_forward_mode():
    # Along 3 that of 2 y dy/dx is 2 (dy/dx)^2 * 3 where nothing is clipped.
    value = torch.tensor([2.2, 300.0], requires_grad=True)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(value, torch.tensor([3.0, 3.0]))
        found = fake_quantize_flat(dual, torch.tensor(1.0), None, **INT8, clip_gradient=True)
        (gradient,) = torch.autograd.grad(found.square().sum(), value)
        first, second = forward_ad.unpack_dual(gradient)
    assert first.tolist() == [4.0, 0.0]
    assert second.tolist() == [6.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_value_that_is_cut_into_pieces_keeps_layout_and_gradient(monkeypatch, dtype):
    value = torch.randn(2, 3, 4, 4).to(dtype).to(memory_format=torch.channels_last)
    value.requires_grad_()
    scale = torch.tensor([0.01, 0.02, 0.03]).view(3, 1, 1)
    expected = fake_quantize_flat(value, scale, None, **INT8)
    monkeypatch.setattr(levels, "_LARGEST_PIECE", 7)
    found = fake_quantize_flat(value, scale, None, **INT8)
    found.sum().backward()
    assert torch.equal(found, expected)
    assert found.stride() == value.stride()
    assert (value.grad == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("is_apart", [False, True])
def test_clipping_leaves_the_gradient_that_came_as_it_is(dtype, is_apart):
    value = torch.tensor([[2.2, 300.0, -1.0], [-400.0, 0.0, 5.0]], requires_grad=True)
    came = torch.arange(1.0, 7.0).view(3, 2).T if is_apart else torch.arange(1.0, 7.0).view(2, 3)
    gradient, value = came.to(dtype), value.detach().to(dtype).requires_grad_()
    found = fake_quantize_flat(value, torch.tensor(1.0), None, **INT8, clip_gradient=True)
    (passed,) = torch.autograd.grad(found, value, gradient)
    inside = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    assert torch.equal(gradient.float(), came)
    assert torch.equal(passed.float(), inside * came)


def test_several_gradients_at_once_are_clipped_as_one_after_the_other():
    value = torch.tensor([2.2, 300.0, -1.0], requires_grad=True)
    found = fake_quantize_flat(value, torch.tensor(1.0), None, **INT8, clip_gradient=True)
    (passed,) = torch.autograd.grad(found, value, torch.eye(3), is_grads_batched=True)
    assert torch.equal(passed, torch.diag(torch.tensor([1.0, 0.0, 1.0])))
