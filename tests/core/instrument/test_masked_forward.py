"""When a masked layer computes by itself, and when PyTorch's own forward does."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import tersely
from tersely.instrument.names import TAP
from tersely.instrument.tapping import Tap
from tersely.instrument.transforms import put

MASK = "_tersely_weight_mask"
OURS = ("_MaskedLinearBackward", "_MaskedConvolutionBackward")


class Halved(nn.Linear):
    """A linear layer with a forward of its own."""

    def forward(self, value):
        return functional.linear(value, self.weight / 2, self.bias)


class Shifted(nn.Conv2d):
    """A convolution that computes by itself, but is called as PyTorch's."""

    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(input, weight, bias) + 1


class Watching(TorchDispatchMode):
    """Sees the operators that run."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(function)
        return function(*args, **(kwargs or {}))


class Calling(TorchFunctionMode):
    """Sees the functions that are called."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.seen.append(function)
        return function(*args, **(kwargs or {}))


class Marked(torch.Tensor):
    """A tensor of another class."""


@pytest.fixture
def layer(masked_layer):
    torch.manual_seed(0)
    return masked_layer(nn.Linear(1024, 1024))


@pytest.fixture
def value():
    return torch.randn(4, 1024, generator=torch.Generator().manual_seed(1))


def is_ours(output):
    return output.grad_fn.name() in OURS


def expected(layer, value):
    weight, mask = layer._parameters["weight"], layer._buffers[MASK]
    return functional.linear(value, weight * mask, layer._parameters["bias"])


def test_a_large_layer_with_a_mask_alone_computes_by_itself(layer, value):
    assert is_ours(layer(value))
    torch.testing.assert_close(layer(value), expected(layer, value))


def test_a_large_layer_with_masks_on_its_output_too_computes_by_itself(value, prune):
    layer = nn.Linear(1024, 1024)
    both = {"op_names": ["0"], "target_names": ["weight", "_output_"], "sparse_ratio": 0.5}
    prune(nn.Sequential(layer), both, data=[value])
    output = layer(value)
    assert output.grad_fn.next_functions[0][0].name() in OURS
    assert (output == 0).sum() == 4 * 512


def test_before_there_is_a_mask_pytorch_computes(value):
    layer = nn.Linear(1024, 1024)
    recipe = {"pruning": {"algorithm": "toy", "config_list": [{"op_types": ["Linear"]}]}}
    tersely.attach(nn.Sequential(layer), recipe)
    assert not is_ours(layer(value))


def test_a_small_layer_is_left_to_pytorch(masked_layer, value):
    layer = masked_layer(nn.Linear(1024, 1023))
    assert not is_ours(layer(value))
    torch.testing.assert_close(layer(value), expected(layer, value))


def test_a_large_batch_is_left_to_pytorch(layer):
    assert is_ours(layer(torch.randn(8, 8, 1024)))
    assert not is_ours(layer(torch.randn(5, 13, 1024)))


def test_a_mask_of_rows_is_left_to_pytorch(prune, value):
    layer = nn.Linear(1024, 1024)
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}
    prune(nn.Sequential(layer), entry, algorithm="toy_rows")
    assert layer._buffers[MASK].shape == (1024, 1)
    assert not is_ours(layer(value))


def test_an_additive_mask_is_left_to_pytorch(prune, value):
    layer = nn.Linear(1024, 1024)
    setting = {"weight": {"sparse_ratio": 0.5, "apply_method": "add"}}
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "target_settings": setting}
    prune(nn.Sequential(layer), entry)
    assert not is_ours(layer(value))


def test_another_step_on_the_weight_is_left_to_pytorch(layer, value):
    tap = Tap(keeps_graph=True)
    put(layer, "weight", (tap,), place=TAP)
    assert not is_ours(layer(value))
    assert torch.equal(tap.value, layer.weight)


def test_a_mask_that_learns_is_left_to_pytorch(layer, value):
    layer._buffers[MASK].requires_grad_()
    layer(value).sum().backward()
    assert layer._buffers[MASK].grad is not None


def test_a_forward_of_the_users_own_is_called(masked_layer, value):
    layer = masked_layer(Halved(1024, 1024))
    weight, mask = layer._parameters["weight"], layer._buffers[MASK]
    torch.testing.assert_close(
        layer(value), functional.linear(value, weight * mask / 2, layer.bias)
    )


def test_a_forward_that_is_assigned_is_called(layer, value):
    layer.forward = lambda value: value
    assert layer(value) is value


def test_a_convolution_of_the_users_own_is_called(masked_layer):
    layer = masked_layer(Shifted(64, 64, 4))
    image = torch.randn(1, 64, 4, 4)
    assert not is_ours(layer(image))
    torch.testing.assert_close(
        layer(image) - 1, layer._conv_forward(image, layer.weight, layer.bias) - 1
    )


def test_hooks_are_called(layer, value):
    seen = []
    layer.register_forward_pre_hook(lambda module, args: seen.append("before"))
    layer.register_forward_hook(lambda module, args, output: seen.append("after"))
    layer.register_full_backward_hook(lambda module, into, out: seen.append("backward"))
    layer(value.requires_grad_()).sum().backward()
    assert seen == ["before", "after", "backward"]


def test_autocast_is_left_to_pytorch(layer, value):
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(value)
    assert output.dtype is torch.bfloat16
    assert not is_ours(output)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_left_to_pytorch(layer, value, dtype):
    layer.to(dtype)
    assert not is_ours(layer(value.to(dtype)))


@pytest.mark.parametrize(
    "wrong", [torch.zeros(4, 1023), torch.zeros(()), torch.zeros(4, 1024).double()]
)
def test_a_wrong_input_is_refused_by_pytorch(layer, wrong):
    with pytest.raises(RuntimeError) as plain:
        nn.Linear(1024, 1024)(wrong)
    with pytest.raises(RuntimeError) as found:
        layer(wrong)
    assert str(found.value) == str(plain.value)


def test_tensors_of_another_class_are_left_to_pytorch(layer, value):
    output = layer(value.as_subclass(Marked))
    assert type(output) is Marked
    assert not is_ours(output)


def test_a_model_on_the_meta_device_is_left_to_pytorch(layer, value):
    layer.to("meta")
    assert not is_ours(layer(value.to("meta")))


@pytest.mark.parametrize("mode", [Watching, Calling])
def test_modes_see_what_they_would_see_without_masks(layer, value, mode):
    with mode() as watching:
        output = layer(value)
    assert not is_ours(output)
    wanted = torch.ops.aten.addmm.default if mode is Watching else functional.linear
    assert wanted in watching.seen


# PyTorch's own decompositions for forward mode are TorchScript, of which it warns.
FORWARD_MODE = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


@FORWARD_MODE
def test_forward_mode_differentiation_works(layer, value):
    direction = torch.ones_like(value)
    with forward_ad.dual_level():
        output = layer(forward_ad.make_dual(value, direction))
        found = forward_ad.unpack_dual(output).tangent
    torch.testing.assert_close(found, functional.linear(direction, layer.weight))


@FORWARD_MODE
@pytest.mark.parametrize("way", [torch.func.jacrev, torch.func.jacfwd])
def test_functional_jacobians_work(layer, value, way):
    torch.testing.assert_close(way(layer)(value[0]), layer.weight)


def test_vmap_works(layer, value):
    torch.testing.assert_close(torch.vmap(layer)(value), expected(layer, value))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_trace_holds_pytorchs_operators(layer, value):
    traced = torch.jit.trace(layer, value)
    assert "aten::linear" in str(traced.inlined_graph)
    torch.testing.assert_close(traced(value), expected(layer, value))


@pytest.mark.parametrize("strict", [True, False])
def test_an_export_holds_pytorchs_operators(layer, value, strict):
    program = torch.export.export(layer, (value,), strict=strict)
    targets = [str(node.target) for node in program.graph.nodes]
    assert "aten.linear.default" in targets
    torch.testing.assert_close(program.module()(value), expected(layer, value))


def test_a_compiled_layer_is_one_graph_of_pytorchs_operators(layer, value):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    output = torch.compile(layer, fullgraph=True, backend=backend)(value)
    torch.compiler.reset()
    (graph,) = graphs
    assert "linear" in graph.code
    torch.testing.assert_close(output, expected(layer, value))
