"""Query, key and value read one tensor: it is observed and quantized once."""

import copy
import gc
import pickle
import weakref
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import tersely


class Attention(nn.Module):
    """One head with a residual connection; with ``is_copying`` every layer reads its own tensor."""

    def __init__(self, *, is_copying):
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key, self.value, self.output = (nn.Linear(8, 8) for _ in range(4))
        self.is_copying = is_copying

    def read(self, value):
        # An alias: the same values and gradients, and another tensor.
        return value.view_as(value) if self.is_copying else value

    def forward(self, value, attention_mask=None):
        query, key, found = (one(self.read(value)) for one in (self.query, self.key, self.value))
        weights = torch.softmax(query @ key.transpose(-1, -2), -1)
        return value + self.output(weights @ found)


class Counting(TorchDispatchMode):
    """Counts operators."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.found[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


def attached(*, is_copying=False, targets=("_input_",), **entry):
    model = Attention(is_copying=is_copying).train()
    entry = {"op_types": ["Linear"], "target_names": list(targets), "quant_dtype": "int8", **entry}
    recipe = {"quantization": {"algorithm": "qat", "config_list": [entry]}}
    return model, tersely.attach(model, recipe)


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 6, 8, generator=generator, requires_grad=True)


def trained(how=None, *, mask=None, **entry):
    """Three steps of two calls each: outputs, gradients and the state of the model."""
    model, session = attached(targets=("_input_", "weight"), **entry)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    for seed in range(3):
        value = batch(seed)
        if how is None:
            output = model(value.tanh(), attention_mask=mask) + model(2 * value)
        else:
            output = checkpoint(model, value.tanh(), use_reentrant=how) + model(2 * value)
        optimizer.zero_grad()
        output.square().mean().backward()
        found += [output.detach(), value.grad, *(one.grad.clone() for one in model.parameters())]
        optimizer.step()
        session.step()
    return [*found, *(one.clone() for one in model.state_dict().values())]


def are_equal(ours, theirs):
    return all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("how", [None, False, True], ids=["plain", "checkpoint", "reentrant"])
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("apply_method", ["qat_clamp_round", "clamp_round"])
def test_results_gradients_and_ranges_are_those_of_three_tensors(how, scheme, apply_method):
    entry = {"quant_scheme": scheme, "apply_method": apply_method}
    assert are_equal(trained(how, **entry), trained(how, is_copying=True, **entry))


def test_results_gradients_and_ranges_are_those_of_three_tensors_where_there_is_padding():
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]] * 4)
    assert are_equal(trained(mask=mask), trained(mask=mask, is_copying=True))


def test_one_tensor_is_observed_and_quantized_once():
    passes = {}
    for is_copying in (False, True):
        model, _ = attached(is_copying=is_copying)
        with Counting() as counting:
            model(batch(0))
        passes[is_copying] = (counting.found["aminmax"], counting.found["round_"])
    assert passes == {False: (2, 2), True: (4, 4)}


def calibrated(*, is_copying=False):
    model = Attention(is_copying=is_copying).eval()
    entry = {"op_types": ["Linear"], "target_names": ["_input_"], "quant_dtype": "int8"}
    session = tersely.quantize(model, [entry], algorithm="ptq", data=[batch(0)])
    return model, session


@pytest.mark.parametrize("has_gradients", [False, True])
def test_one_tensor_is_quantized_once_with_the_scale_of_calibration(has_gradients):
    found = {}
    for is_copying in (False, True):
        model, _ = calibrated(is_copying=is_copying)
        with torch.set_grad_enabled(has_gradients), Counting() as counting:
            outputs = [model(batch(seed)) for seed in (1, 2, 1)]
        found[is_copying] = (outputs, counting.found["round_"])
    assert are_equal(found[False][0], found[True][0])
    assert (found[False][1], found[True][1]) == (6, 12)


def test_a_tensor_that_was_written_to_is_quantized_again_without_gradients():
    model, _ = calibrated()
    with torch.no_grad():
        value = batch(0).detach()
        model.query(value)
        value.mul_(0.5)
        found = model.key(value)
        assert torch.equal(found, model.key(value.clone()))


@pytest.mark.parametrize("by", ["numpy", "data"])
def test_a_tensor_that_is_filled_anew_unseen_for_every_forward_is_quantized_again(by):
    model, _ = calibrated()
    value = torch.zeros(4, 6, 8)
    for seed in (1, 2):
        filling = value.numpy() if by == "numpy" else value.data
        filling[:] = batch(seed).detach()
        with torch.no_grad():
            found = [one(value) for one in (model.query, model.key)]
            fresh = [one(value.clone()) for one in (model.query, model.key)]
            found.append(model.query(value))  # the last tensor is this one again
            assert are_equal(found, [*fresh, fresh[0]])
            filling[:] = 0
            assert not torch.equal(model.query(value), fresh[0])


def test_a_range_follows_a_tensor_that_is_filled_anew_unseen():
    found = {}
    for is_same_tensor in (False, True):
        model, session = attached()
        value = torch.ones(4, 6, 8)
        for size in (1, 3):
            value.data[:] = size
            model.query(value if is_same_tensor else value.clone())
            session.step()
        found[is_same_tensor] = session.qparams()["query"]["_input_"].scale
    assert found[False] > 1 / 127
    assert found[True] == found[False]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("readers", [("query", "key"), ("key",)], ids=["all", "second"])
def test_a_traced_layer_reads_its_input_also_after_another_forward_read_it(readers):
    model, _ = calibrated()
    value, other = batch(1).detach(), batch(2).detach()
    with torch.no_grad():
        for name in readers:
            getattr(model, name)(value)
        traced = torch.jit.trace(model.query, (value,), check_trace=False)
        assert torch.equal(traced(other), model.query(other))


def test_a_model_copied_in_inference_mode_computes_outside_of_it():
    model, _ = calibrated()
    with torch.inference_mode():
        made = copy.deepcopy(model)
    with torch.no_grad():
        assert torch.equal(made(batch(1)), model(batch(1)))


def test_shapes_are_found_without_values():
    model, _ = calibrated()
    model.to("meta")
    with torch.no_grad():
        assert model(torch.empty(4, 6, 8, device="meta")).shape == (4, 6, 8)


@pytest.mark.parametrize("is_new_input", [False, True])
def test_what_a_tensor_became_without_gradients_goes_with_it_or_with_the_next_one(is_new_input):
    model, _ = calibrated()
    read = []
    inner = nn.functional.linear

    def linear(value, weight, bias=None):
        read.append(weakref.ref(value))
        return inner(value, weight, bias)

    value = batch(1).detach()
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.functional, "linear", linear)
        model.query(value)
        assert read[0]() is not None
        if is_new_input:
            model.key(batch(2).detach())
        else:
            del value
    gc.collect()
    assert read[0]() is None


def test_a_layer_with_another_scale_quantizes_the_tensor_itself():
    model, _ = attached()
    model.key(3 * batch(1))
    expected = copy.deepcopy(model)
    expected.is_copying = True
    with Counting() as counting:
        found = model(batch(0))
    assert torch.equal(found, expected(batch(0)))
    # The last result alone is remembered, so after key value is quantized again.
    assert counting.found["round_"] == 4


def test_a_tensor_that_was_written_to_is_observed_and_quantized_again():
    model, session = attached()
    with torch.no_grad():
        value = batch(0).detach()
        model.query(value)
        value.mul_(3)
        model.key(value)
    scale = session.qparams()["key"]["_input_"].scale
    assert torch.allclose(scale, value.abs().max() / 127)


def triple(value):
    return value.data * 3


def transposed(value):
    return value.data.transpose(0, 1)


@pytest.mark.parametrize("change", [triple, transposed])
@pytest.mark.parametrize("has_gradients", [False, True])
def test_a_tensor_whose_data_was_assigned_is_another_one(has_gradients, change):
    model, session = calibrated()
    value = torch.randn(4, 4, 8, generator=torch.Generator().manual_seed(1))
    with torch.set_grad_enabled(has_gradients):
        model.query(value)
        value.data = change(value)
        found = model.key(value)
        assert torch.equal(found, model.key(value.clone()))

    model, session = attached()
    model.query(value)
    value.data = 3 * value.data
    model.key(value)
    assert session.qparams()["key"]["_input_"].scale == value.abs().max() / 127


def test_nothing_of_a_forward_is_kept_alive():
    model, _ = attached()
    value = batch(0) + 0
    output = model(value)
    alive = weakref.ref(value)
    del value, output
    gc.collect()
    assert alive() is None


def test_models_are_copied_and_pickled_between_forward_and_backward():
    model, _ = attached()
    output = model(batch(0))
    for made in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # our own
        made.eval(), model.eval()
        assert torch.equal(made(batch(1)), model(batch(1)))
    output.sum().backward()
