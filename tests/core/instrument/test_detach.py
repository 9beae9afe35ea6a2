"""Invariant 8: detaching gives the dense model back; what cannot be attached stays untouched."""

import copy as copying

import pytest
import torch
from messages.planning import LEAVE_OUT_BY_NAME, NOT_IN_MODEL, PLAN_AGAIN
from messages.sessions import NOTHING_KEPT, STAYS_INSTRUMENTED
from torch import nn

import tersely


def recipe(*entries):
    return {"pruning": {"algorithm": "toy", "config_list": list(entries)}}


def refused(model, *entries):
    with pytest.raises(tersely.AttachError) as caught:
        tersely.attach(model, recipe(*entries))
    return str(caught.value)


def test_detaching_gives_the_dense_model_back_bit_for_bit(net, x, prune, snapshot, assert_same):
    before = snapshot(net)
    session = prune(
        net,
        {"op_types": ["Linear"], "sparse_ratio": 0.5},
        {"op_names": ["act"], "target_names": ["_input_", "_output_"], "sparse_ratio": 0.25},
        data=[x],
    )
    net(x).sum().backward()
    net.zero_grad()
    assert session.detach() is net
    assert_same(net, before)


def test_detaching_after_training_leaves_the_weights_as_trained(net, x, prune):
    session = prune(net, {"op_types": ["Linear"], "sparse_ratio": 0.5})
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
    net(x).sum().backward()
    optimizer.step()
    raw = net._modules["first"]._parameters["weight"].detach().clone()
    session.detach()
    assert torch.equal(net.first.weight, raw)
    assert int((net.first.weight == 0).sum()) == 0


def test_detaching_before_compress_works(net, snapshot, assert_same):
    before = snapshot(net)
    tersely.attach(net, recipe({"op_types": ["Linear"], "sparse_ratio": 0.5})).detach()
    assert_same(net, before)


def test_a_detached_model_can_be_attached_again(net, x, prune):
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.5}
    first = prune(net, entry)
    expected = net(x)
    first.detach()
    prune(net, entry)
    assert torch.equal(net(x), expected)


def test_a_second_session_on_one_model_is_refused(net, masked, snapshot, assert_same):
    before = snapshot(net)
    assert refused(net, {"op_names": ["last"], "sparse_ratio": 0.5}) == (
        "'last' is instrumented already; call finalize() or detach() on the session that did it, or "
        "put all stages into one recipe. A finalized module keeps its input and output masks, and a "
        "copy of an attached model has no session: start from the model as it was built"
    )
    assert_same(net, before)


def test_two_sessions_on_different_modules_of_one_model_work(net, prune):
    first = prune(net, {"op_names": ["first"], "sparse_ratio": 0.5})
    second = prune(net, {"op_names": ["last"], "sparse_ratio": 0.25})
    assert first.sparsity()["first"]["weight"] == 0.5
    assert second.sparsity()["last"]["weight"] == 0.25
    first.finalize()
    second.detach()
    assert type(net.first) is type(net.last) is nn.Linear


def test_a_module_of_which_no_subclass_can_be_made_is_refused(snapshot, assert_same):
    class Final(nn.Linear):
        def __init_subclass__(cls):
            raise ValueError("no heirs")

    model = nn.Sequential(nn.Linear(4, 4), Final(4, 2))
    before = snapshot(model)
    text = refused(
        model,
        {
            "op_names": ["0", "1"],
            "target_names": ["weight"],
            "target_settings": {"weight": {"sparse_ratio": 0.5}},
        },
    )
    assert text == f"'1' cannot take another class: ValueError: no heirs; {LEAVE_OUT_BY_NAME}"
    assert_same(model, before)


def test_an_interruption_while_attaching_leaves_the_model_untouched(snapshot, assert_same):
    class Interrupting(nn.Linear):
        def __init_subclass__(cls):
            raise KeyboardInterrupt

    model = nn.Sequential(nn.Linear(4, 4), Interrupting(4, 2))
    before = snapshot(model)
    entry = {"op_names": ["0", "1"], "target_names": ["weight"]}
    with pytest.raises(KeyboardInterrupt):
        tersely.attach(model, recipe(entry))
    assert_same(model, before)


def test_a_forward_assigned_to_the_instance_is_refused(snapshot, assert_same):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model[1].forward = lambda value: value
    before = snapshot(model)
    assert refused(model, {"op_names": ["1"], "target_names": ["_output_"]}) == (
        "'1' has a forward assigned to the instance, which would bypass its input and output "
        "targets; remove that assignment (hooks of other tools) before attaching"
    )
    assert_same(model, before)


@pytest.mark.filterwarnings(f"ignore:.*{NOTHING_KEPT}")
def test_a_forward_assigned_to_the_instance_does_not_matter_to_weights(prune):
    model = nn.Sequential(nn.Linear(4, 4))
    layer = model[0]
    layer.forward = lambda value: nn.functional.linear(value, layer.weight)
    prune(model, {"op_names": ["0"], "sparse_ratio": 1})
    assert int(model(torch.ones(1, 4)).count_nonzero()) == 0


class _Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))

    def forward(self, value):
        return value @ self.weight


@pytest.mark.parametrize("targets", [["weight"], ["_output_", "weight"], ["_output_"]])
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(2, 2),
        lambda: nn.Conv1d(2, 2, 1),
        lambda: nn.Embedding(2, 2, max_norm=1.0),
        _Own,
    ],
    ids=["linear", "convolution", "embedding", "own"],
)
@pytest.mark.filterwarnings(f"ignore:{STAYS_INSTRUMENTED}")
def test_a_forward_that_another_tool_kept_while_attached_works_afterwards(prune, make, targets):
    torch.manual_seed(0)
    layer = make()
    values = torch.tensor([[0, 1]]) if isinstance(layer, nn.Embedding) else torch.ones(2, 2)
    dense = layer(values)
    entry = {"op_names": ["0"], "target_names": targets, "sparse_ratio": 0.5}
    for end in ("finalize", "detach"):
        model = nn.Sequential(copying.deepcopy(layer))
        session = prune(model, entry, data=[values])
        kept = model[0].forward
        model[0].forward = lambda *given, kept=kept: kept(*given)
        masked = model(values)
        expected = masked if end == "finalize" else dense
        getattr(session, end)()
        torch.testing.assert_close(model(values), expected)


def test_a_buffer_with_a_reserved_name_is_refused(snapshot, assert_same):
    model = nn.Sequential(nn.Linear(4, 4))
    model[0].register_buffer("_tersely_notes", torch.zeros(1))
    before = snapshot(model)
    assert refused(model, {"op_names": ["0"], "target_names": ["weight"]}) == (
        "'0' has a buffer '_tersely_notes'; names in _tersely_* are reserved, rename it"
    )
    assert_same(model, before)


def test_the_root_module_is_called_so_in_messages():
    model = nn.Linear(4, 4)
    model.register_buffer("_tersely_notes", torch.zeros(1))
    assert refused(model, {"op_types": ["Linear"]}).startswith("the root module has a buffer")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_torchscript_module_of_a_plan_made_before_is_refused():
    model = nn.Sequential(nn.Linear(4, 4))
    plan = tersely.plan(model, recipe({"op_names": ["0"], "sparse_ratio": 0.5}))
    scripted = nn.Sequential(torch.jit.script(model[0]))
    with pytest.raises(tersely.AttachError) as caught:
        tersely.attach(scripted, plan)
    assert str(caught.value) == (
        "'0' is a TorchScript module, which cannot be instrumented; compress the module before "
        "torch.jit.script or torch.jit.trace"
    )


def test_a_plan_with_a_module_that_the_model_lacks_is_refused(net, snapshot, assert_same):
    plan = tersely.plan(net, recipe({"op_types": ["Linear"], "sparse_ratio": 0.5}))
    other = nn.Sequential(nn.Linear(6, 8))
    before = snapshot(other)
    with pytest.raises(tersely.AttachError) as caught:
        tersely.attach(other, plan)
    assert str(caught.value) == (f"the plan has module 'first', {NOT_IN_MODEL}; {PLAN_AGAIN}")
    assert_same(other, before)


def test_a_plan_with_another_shape_is_refused(net):
    plan = tersely.plan(net, recipe({"op_names": ["first"], "target_names": ["weight"]}))
    other = type(net)()
    other.first = nn.Linear(6, 9)
    with pytest.raises(tersely.AttachError) as caught:
        tersely.attach(other, plan)
    assert str(caught.value) == (
        "the plan has first.weight with shape [8, 6], the model has shape [9, 6] there; "
        f"{PLAN_AGAIN}"
    )


def test_a_plan_with_a_parameter_that_the_module_lacks_is_refused(net):
    plan = tersely.plan(net, recipe({"op_names": ["first"], "target_names": ["weight"]}))
    other = type(net)()
    other.first = nn.Identity()
    with pytest.raises(tersely.AttachError) as caught:
        tersely.attach(other, plan)
    assert str(caught.value) == (
        f"the plan has first.weight with shape [8, 6], the model has nothing there; {PLAN_AGAIN}"
    )


def test_a_plan_with_a_parameter_that_is_none_now_is_refused(net):
    plan = tersely.plan(net, recipe({"op_names": ["first"], "sparse_ratio": 0.5}))
    other = type(net)()
    other.first = nn.Linear(6, 8, bias=False)
    with pytest.raises(tersely.AttachError) as caught:
        tersely.attach(other, plan)
    assert str(caught.value) == (
        f"the plan has first.bias with shape [8], the model has nothing there; {PLAN_AGAIN}"
    )
