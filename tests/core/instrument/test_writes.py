"""Writes through ``layer.weight`` act on the parameter, as they do without tersely, or are refused."""

import copy as copying
import io
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import tersely
from tersely import SessionError

NAME = "0.weight"


def clamp_data(layer):
    layer.weight.data.clamp_(-0.1, 0.1)


def add_to_data(layer):
    layer.weight.data += torch.full((4, 6), 0.25)


def set_row_of_data(layer):
    layer.weight.data[1] = 0


def zero_a_view_of_data(layer):
    layer.weight.data.view(-1)[3:9].zero_()


def transposed_view_of_data(layer):
    layer.weight.data.T[2].fill_(0.5)


def rows_of_data(layer):
    for row in layer.weight.data:
        row.mul_(3)


def chunk_of_data(layer):
    layer.weight.data.chunk(2)[1].fill_(0.75)


def detached(layer):
    layer.weight.detach().mul_(-1)


def masked_fill_data(layer):
    layer.weight.data.masked_fill_(torch.arange(24).view(4, 6) % 2 == 0, 0.5)


def indexed_by_a_mask(layer):
    layer.weight.data[torch.arange(24).view(4, 6) % 3 == 0] = 0.5


@torch.no_grad()
def copy_values(layer):
    layer.weight.copy_(torch.arange(24.0).view(4, 6) + 1)


@torch.no_grad()
def multiply(layer):
    layer.weight.mul_(2)


@torch.no_grad()
def multiply_by_an_operator(layer):
    layer.weight *= 2


@torch.no_grad()
def set_an_element(layer):
    layer.weight[0, 0] = 7


@torch.no_grad()
def set_columns(layer):
    layer.weight[:, 1:3] = 0


@torch.no_grad()
def chained(layer):
    layer.weight.zero_().add_(2)


@torch.no_grad()
def standardize(layer):
    layer.weight.sub_(1.0).div_(4.0)


def assign_data(layer):
    layer.weight.data = torch.arange(24.0).view(4, 6) + 1


def init_normal(layer):
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(3))


def init_normal_of_data(layer):
    nn.init.normal_(layer.weight.data, generator=torch.Generator().manual_seed(3))


def init_orthogonal(layer):
    nn.init.orthogonal_(layer.weight, generator=torch.Generator().manual_seed(3))


def init_sparse(layer):
    torch.manual_seed(3)
    nn.init.sparse_(layer.weight, 0.5, generator=torch.Generator().manual_seed(3))


def reset(layer):
    torch.manual_seed(3)
    layer.reset_parameters()


def renormalize(layer):
    layer.weight.data.renorm_(2, 0, 0.3)


WRITES = [
    clamp_data,
    add_to_data,
    set_row_of_data,
    zero_a_view_of_data,
    transposed_view_of_data,
    rows_of_data,
    chunk_of_data,
    detached,
    masked_fill_data,
    indexed_by_a_mask,
    copy_values,
    multiply,
    multiply_by_an_operator,
    set_an_element,
    set_columns,
    chained,
    standardize,
    assign_data,
    init_normal,
    init_normal_of_data,
    init_orthogonal,
    init_sparse,
    reset,
    renormalize,
]


def _layer():
    torch.manual_seed(0)
    return nn.Linear(6, 4)


def _pruned():
    """A layer of which half is masked, its session, and its parameter."""
    layer = _layer()
    session = tersely.prune(
        nn.Sequential(layer), [{"op_types": ["Linear"], "sparse_ratio": 0.5}], algorithm="toy"
    )
    return layer, session, layer._parameters["weight"]


@pytest.fixture
def pruned():
    return _pruned()


@pytest.mark.parametrize("write", WRITES, ids=lambda one: one.__name__)
def test_a_write_does_to_a_masked_parameter_what_it_does_to_a_plain_one(write):
    plain, (layer, session, raw) = _layer(), _pruned()
    mask = session.masks()["0"]["weight"]
    write(plain)
    write(layer)
    assert layer._parameters["weight"] is raw
    assert torch.equal(raw, plain.weight)
    assert torch.equal(layer.weight, plain.weight * mask)
    session.step()


@pytest.mark.parametrize("write", WRITES, ids=lambda one: one.__name__)
def test_a_write_in_inference_mode_acts_on_the_parameter(write):
    plain, (layer, _, raw) = _layer(), _pruned()
    write(plain)
    with torch.inference_mode():
        write(layer)
    assert torch.equal(raw, plain.weight)


def test_what_the_user_keeps_shows_the_written_values(pruned):
    layer, session, raw = pruned
    mask = session.masks()["0"]["weight"]
    kept = layer.weight.data
    kept.mul_(2)
    assert torch.equal(kept, raw * mask)


def test_a_write_under_grad_is_refused_as_that_of_a_plain_parameter(pruned):
    layer, _, raw = pruned
    before = raw.detach().clone()
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        layer.weight.mul_(2)
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        layer.weight[0] = 0
    assert torch.equal(raw, before)


def test_a_parameter_that_is_assigned_is_the_target_from_then_on(pruned):
    layer, _, _ = pruned
    ones = nn.Parameter(torch.ones(4, 6))
    layer.weight = ones
    assert layer._parameters["weight"] is ones
    assert layer.weight.sum() == 12
    layer.weight.data.mul_(2)
    assert ones.sum() == 48


def test_values_computed_from_the_shown_ones_leave_masked_ones_as_they_are(pruned):
    layer, session, raw = pruned
    before, mask = raw.detach().clone(), session.masks()["0"]["weight"]
    layer.weight.data = layer.weight.data.clamp(-0.2, 0.2)
    assert torch.equal(raw, torch.where(mask, before.clamp(-0.2, 0.2), before))


def test_values_copied_from_the_shown_ones_leave_masked_ones_as_they_are(pruned):
    layer, _, raw = pruned
    before = raw.detach().clone()
    with torch.no_grad():
        layer.weight.copy_(layer.weight.clone())
    assert torch.equal(raw, before)


def test_assigned_data_is_the_same_memory(pruned):
    layer, _, raw = pruned
    value = torch.ones(4, 6)
    layer.weight.data = value
    assert raw.data_ptr() == value.data_ptr()


def test_data_of_one_target_assigned_to_another_ties_the_parameters():
    model = nn.Sequential(_layer(), nn.Linear(6, 4))
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.5}
    tersely.prune(model, [entry], algorithm="toy")
    model[1].weight.data = model[0].weight.data
    parameters = dict(model.named_parameters())
    assert parameters["1.weight"].data_ptr() == parameters["0.weight"].data_ptr()


def test_data_of_another_shape_is_refused(pruned):
    layer, _, _ = pruned
    with pytest.raises(SessionError, match=r"0\.weight\.data: a tensor of shape \[2, 6\]"):
        layer.weight.data = torch.zeros(2, 6)


@pytest.mark.parametrize("is_first", [True, False])
def test_what_is_shown_is_not_swapped_for_another_tensor(pruned, is_first):
    layer, session, raw = pruned
    before, other = raw.detach().clone(), nn.Parameter(torch.ones(4, 6))
    pair = (layer.weight, other) if is_first else (other, layer.weight)
    with pytest.raises(
        SessionError, match=r"what 0\.weight shows is computed .* assign the other param"
    ):
        torch.utils.swap_tensors(*pair)
    assert torch.equal(raw, before)
    assert torch.equal(other, torch.ones(4, 6))
    session.step()


def test_another_shape_in_place_is_refused(pruned):
    layer, _, raw = pruned
    with torch.no_grad(), pytest.raises(SessionError, match=r"0\.weight\.t_\(\) would give"):
        layer.weight.t_()
    assert raw.shape == (4, 6)


def test_an_alias_changes_its_own_shape_and_still_writes(pruned):
    layer, _, raw = pruned
    alias = layer.weight.data
    alias.t_()
    alias[0] = 5
    assert raw[:, 0].tolist() == [5.0] * 4


def _clamp_by_a_function(layer):
    with torch.no_grad():
        torch.clamp_(layer.weight, -0.1, 0.1)


def _fill_through_out(layer):
    with torch.no_grad():
        torch.zeros(4, 6, out=layer.weight)


def _scale_a_list(layer):
    torch._foreach_mul_([layer.weight.data], 2.0)


def _through_a_view_by_a_function(layer):
    with torch.no_grad():
        torch.relu_(torch.flatten(layer.weight))


def _identity_by_the_initializer(layer):
    nn.init.eye_(layer.weight)  # reads it with gradients, and writes through out= without


def _scale_what_was_read_with_gradients(layer):
    weights = [layer.weight]
    with torch.no_grad():
        torch._foreach_mul_(weights, 2.0)


LOST = [
    _clamp_by_a_function,
    _fill_through_out,
    _scale_a_list,
    _through_a_view_by_a_function,
    _identity_by_the_initializer,
    _scale_what_was_read_with_gradients,
]


@pytest.mark.parametrize("write", LOST, ids=lambda one: one.__name__)
@pytest.mark.parametrize("call", ["step", "report", "finalize", "compress"])
def test_a_write_that_is_lost_is_refused_by_the_next_call(pruned, write, call):
    layer, session, _ = pruned
    write(layer)
    with pytest.raises(SessionError, match=r"^0\.weight was written into by a function"):
        getattr(session, call)()


def test_a_write_that_is_lost_is_refused_by_save(pruned, tmp_path):
    layer, session, _ = pruned
    _clamp_by_a_function(layer)
    with pytest.raises(SessionError, match=r"^0\.weight was written into by a function"):
        session.save(tmp_path / "session")
    assert not (tmp_path / "session").exists()


@pytest.mark.parametrize("read", [lambda layer: layer.weight, lambda layer: layer(torch.ones(6))])
def test_a_write_that_is_lost_is_refused_by_the_next_read(pruned, read):
    layer, _, _ = pruned
    _clamp_by_a_function(layer)
    with pytest.raises(SessionError, match=r"dict\(model.named_parameters\(\)\)\['0.weight'\]"):
        read(layer)


def test_after_the_refusal_the_session_goes_on(pruned):
    layer, session, raw = pruned
    _clamp_by_a_function(layer)
    with pytest.raises(SessionError):
        session.step()
    with torch.no_grad():
        torch.clamp_(raw, -0.1, 0.1)
    session.step()
    assert layer.weight.abs().max() <= 0.1


def test_an_array_of_what_is_shown_cannot_be_written(pruned):
    layer, _, _ = pruned
    with pytest.raises(ValueError, match="read-only"):
        layer.weight.data.numpy()[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(layer.weight.detach())[0] = 0


def test_the_gradient_is_that_of_the_parameter(pruned):
    layer, _, raw = pruned
    layer(torch.ones(2, 6)).sum().backward()
    assert layer.weight.grad is raw.grad
    layer.weight.grad.zero_()
    assert raw.grad.abs().sum() == 0
    layer.weight.grad = None
    assert raw.grad is None


def test_a_gradient_that_is_retained_is_that_of_the_shown_values(pruned):
    layer, session, raw = pruned
    weight = layer.weight
    weight.retain_grad()
    (weight * 3).sum().backward()
    assert weight.grad.tolist() == [[3.0] * 6] * 4
    assert torch.equal(raw.grad, 3 * session.masks()["0"]["weight"].float())


def test_freezing_freezes_the_parameter(pruned):
    layer, _, raw = pruned
    layer.weight.requires_grad_(False)
    assert not raw.requires_grad
    layer.weight.requires_grad = True
    assert raw.requires_grad
    assert layer.weight.requires_grad


def test_a_hook_stays_on_the_parameter(pruned):
    layer, _, raw = pruned
    layer.weight.register_hook(lambda gradient: gradient * 0 + 2)
    layer(torch.ones(2, 6)).sum().backward()
    assert raw.grad.tolist() == [[2.0] * 6] * 4


def test_a_parameter_made_of_what_is_shown_is_a_plain_one(pruned):
    layer, _, raw = pruned
    before = raw.detach().clone()
    for shown in (layer.weight, layer.weight.data):
        made = nn.Parameter(shown)
        assert type(made) is nn.Parameter
        assert made.is_leaf
        assert made.requires_grad
        with torch.no_grad():
            made.zero_()
    assert torch.equal(raw, before)


def test_a_buffer_made_of_what_is_shown_is_a_plain_one(pruned):
    layer, _, raw = pruned
    before = raw.detach().clone()
    made = nn.Buffer(layer.weight.data)
    made.zero_()
    assert type(made) is type(nn.Buffer(torch.ones(2)))
    assert torch.equal(raw, before)


def test_copies_and_pickles_of_what_is_shown_are_plain_tensors(pruned):
    layer, _, _ = pruned
    shown = layer.weight.data
    file = io.BytesIO()
    torch.save(shown, file)
    file.seek(0)
    for one in (torch.load(file), copying.deepcopy(shown), shown.clone(), shown + 0):
        assert type(one) is torch.Tensor
        assert torch.equal(one, shown)


def test_what_is_shown_compares_with_parameters_and_tensors(pruned):
    layer, session, raw = pruned
    dense = nn.Linear(6, 4)
    with torch.no_grad():
        dense.weight.copy_(raw * session.masks()["0"]["weight"])
    for shown in (layer.weight, layer.weight.data, layer.weight.detach()):
        torch.testing.assert_close(shown, dense.weight)
        torch.testing.assert_close(dense.weight, shown)
        torch.testing.assert_close(shown, dense.weight.detach())
        torch.testing.assert_close(shown, layer.weight)


def test_what_is_shown_prints_as_a_tensor(pruned):
    layer, _, _ = pruned
    assert repr(layer.weight.data[0, :1]).startswith("tensor([")
    assert "grad_fn" in repr(layer.weight)


def test_a_write_into_a_tied_parameter_reaches_every_owner():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}
    tersely.prune(model, [entry], algorithm="toy")
    model[1].weight.data.fill_(3)
    assert torch.equal(model[0].weight, model[1].weight)
    assert model[0].weight.sum() == 24


def test_a_constraint_inside_forward_acts_on_the_parameter():
    class Constrained(nn.Linear):
        def forward(self, x):
            self.weight.data = torch.renorm(self.weight.data, p=2, dim=0, maxnorm=0.3)
            return super().forward(x)

    torch.manual_seed(0)
    layer = Constrained(6, 4)
    session = tersely.prune(
        nn.Sequential(layer),
        [{"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.5}],
        algorithm="toy",
    )
    layer(torch.ones(2, 6)).sum().backward()
    assert (layer.weight.norm(dim=1) <= 0.3 + 1e-6).all()
    assert layer._parameters["weight"].grad is not None
    session.step()


def test_a_merge_of_low_rank_factors_reaches_the_model_that_finalize_returns(pruned):
    layer, session, raw = pruned
    mask, delta = session.masks()["0"]["weight"], torch.full((4, 6), 0.125)
    before = raw.detach().clone()
    layer.weight.data += delta
    model = session.finalize()
    assert torch.equal(model[0].weight, (before + delta) * mask)


def test_detach_gives_back_what_was_written(pruned):
    layer, session, raw = pruned
    layer.weight.data.fill_(0.5)
    session.detach()
    assert layer.weight is raw
    assert (raw == 0.5).all()


def test_a_clamped_read_of_another_parameter_leaves_no_trace(pruned):
    layer, session, _ = pruned
    with torch.no_grad():
        layer.weight.clone().zero_()
        layer.weight.abs().clamp_(max=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session.step()


@pytest.mark.parametrize("has_grad", [True, False])
def test_what_is_shown_goes_into_a_compiled_function(pruned, has_grad):
    layer, _, _ = pruned
    layer(torch.ones(2, 6)).sum().backward()
    torch.compiler.reset()
    compiled = torch.compile(lambda weight: (weight * 2).sum(), fullgraph=True, backend="eager")
    with torch.set_grad_enabled(has_grad), warnings.catch_warnings():
        # PyTorch looks at the gradient of every tensor that it compiles for.
        warnings.filterwarnings("ignore", message="The .grad attribute")
        assert compiled(layer.weight) == (layer.weight * 2).sum()


def test_what_is_shown_goes_through_function_transforms(pruned):
    layer, _, raw = pruned
    x = torch.ones(3, 6)
    with torch.no_grad():
        each = torch.vmap(lambda row: nn.functional.linear(row, layer.weight))(x)
    assert torch.equal(each, nn.functional.linear(x, layer.weight))
    gradient = torch.func.grad(
        lambda weight: torch.func.functional_call(layer, {"weight": weight}, (x,)).sum()
    )(raw.detach())
    layer(x).sum().backward()
    assert torch.equal(gradient, raw.grad)


def test_a_batch_of_weights_is_shown_without_a_trace(pruned):
    layer, session, raw = pruned
    weights = torch.stack([raw.detach(), raw.detach() * 2])

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self):
            return self.layer.weight.view(-1).sum()

    reader = Reader()
    with torch.no_grad():
        sums = torch.vmap(
            lambda weight: torch.func.functional_call(reader, {"layer.weight": weight}, ())
        )(weights)
    torch.testing.assert_close(sums[1], sums[0] * 2)
    session.step()


def test_a_traced_forward_reads_the_masked_weight(pruned):
    layer, _, _ = pruned

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return x @ self.layer.weight.t()

    x = torch.ones(3, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(Reader(), x)
    torch.testing.assert_close(traced(x), x @ layer.weight.t())
