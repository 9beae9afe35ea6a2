"""Finalizing: plain modules, the same Parameter objects, and what stays for activations."""

import pytest
import torch
from messages.sessions import STAYS_INSTRUMENTED
from torch import nn

import tersely
from tersely.session.finalizing.baking import FinalizeWarning

pytestmark = pytest.mark.usefixtures("toy_pruners")

CONFIG = [{"op_types": ["Linear"], "sparse_ratio": 0.5}]
OUTPUT = {"op_names": ["1"], "target_names": ["_output_"], "sparse_ratio": 0.25}


def test_a_finalized_model_is_plain_and_computes_the_same(build, data):
    model = build()
    session = tersely.prune(model, CONFIG, algorithm="toy")
    expected = model(data)
    assert session.finalize() is model
    assert [type(module) for module in model] == [nn.Linear, nn.ReLU, nn.Linear]
    assert torch.equal(model(data), expected)
    assert not any("_tersely" in name for one in model.modules() for name in vars(one))
    assert sorted(model.state_dict()) == sorted(build().state_dict())


def test_masked_elements_are_zero_in_the_users_own_parameters(build):
    model = build()
    before = dict(model.named_parameters())
    pointers = {name: value.data_ptr() for name, value in before.items()}
    session = tersely.prune(model, CONFIG, algorithm="toy")
    masks = session.masks()
    session.finalize()
    for name, value in model.named_parameters():
        assert value is before[name]
        assert value.data_ptr() == pointers[name]
        module, _, target = name.rpartition(".")
        assert torch.equal(value == 0, ~masks[module][target])


def test_an_optimizer_goes_on_training_a_finalized_model(build, data):
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    tersely.prune(model, CONFIG, algorithm="toy").finalize()
    before = model[2].weight.detach().clone()
    model(data).sum().backward()
    optimizer.step()
    assert not torch.equal(model[2].weight, before)


def test_an_additive_mask_is_added_once(build):
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 2.0]]))
    setting = {"sparse_ratio": 0.5, "apply_method": "add", "mask_value": -8}
    entry = {"op_names": ["0"], "target_names": ["weight"], "target_settings": {"weight": setting}}
    session = tersely.prune(model, [entry], algorithm="toy")
    assert model[0].weight.tolist() == [[-7.0, 2.0]]
    session.finalize()
    assert model[0].weight.tolist() == [[-7.0, 2.0]]


def test_a_buffer_is_baked_too():
    model = nn.Sequential(nn.Identity())
    model[0].register_buffer("scale", torch.tensor([1.0, -3.0]))
    entry = {"op_names": ["0"], "target_names": ["scale"], "sparse_ratio": 0.5}
    tersely.prune(model, [entry], algorithm="toy").finalize()
    assert model[0].scale.tolist() == [0.0, -3.0]


def test_an_output_mask_stays_with_one_warning_that_names_it(build, data):
    model = build()
    session = tersely.prune(model, [*CONFIG, OUTPUT], algorithm="toy", data=[data])
    expected = model(data)
    with pytest.warns(FinalizeWarning) as caught:
        session.finalize()
    assert [str(one.message) for one in caught] == [
        (
            f"{STAYS_INSTRUMENTED} its inputs or outputs, so these stay instrumented after "
            "finalize(): 1._output_"
        )
    ]
    assert caught[0].filename == __file__
    assert torch.equal(model(data), expected)
    assert type(model[0]) is type(model[2]) is nn.Linear
    assert sorted(name for name, _ in model.named_buffers()) == ["1._tersely__output__mask"]


@pytest.mark.filterwarnings(f"ignore:{STAYS_INSTRUMENTED}")
def test_a_module_that_stays_has_its_weight_baked(build, data):
    model = build()
    entry = {
        "op_names": ["2"],
        "target_names": ["weight", "_input_"],
        "target_settings": {"_input_": {"sparse_ratio": 0.5}},
        "sparse_ratio": 0.5,
    }
    session = tersely.prune(model, [entry], algorithm="toy", data=[data])
    raw, expected = model._modules["2"]._parameters["weight"], model(data)
    session.finalize()
    assert model[2].weight is raw
    assert int((raw == 0).sum()) == 8
    assert list(model[2]._buffers) == ["_tersely__input__mask"]
    assert torch.equal(model(data), expected)


@pytest.mark.filterwarnings(f"ignore:{STAYS_INSTRUMENTED}")
def test_a_finalized_model_with_an_output_mask_can_be_copied_and_saved(build, data, tmp_path):
    import copy

    model = build()
    tersely.prune(model, [OUTPUT], algorithm="toy", data=[data]).finalize()
    assert torch.equal(copy.deepcopy(model)(data), model(data))
    torch.save(model, tmp_path / "model.pt")
    assert torch.equal(torch.load(tmp_path / "model.pt", weights_only=False)(data), model(data))


def test_a_warning_that_is_made_an_error_still_leaves_a_finalized_model(build, data):
    model = build()
    session = tersely.prune(model, [*CONFIG, OUTPUT], algorithm="toy", data=[data])
    expected = model(data)
    with pytest.raises(UserWarning):  # the suite turns every warning into an error
        session.finalize()
    assert repr(session).startswith("<tersely.Session finalized")
    assert torch.equal(model(data), expected)
    assert type(model[0]) is nn.Linear


@pytest.mark.filterwarnings(f"ignore:{STAYS_INSTRUMENTED}")
def test_a_plugin_is_told_of_a_finalized_session(build):
    told = []

    class Observer:
        @tersely.hookimpl
        def tersely_finalized(self, session):
            told.append((session, type(session.model[0])))

    session = tersely.prune(build(), CONFIG, algorithm="toy")
    name = tersely.registry().register(Observer(), name="observer")
    try:
        session.finalize()
    finally:
        tersely.registry().unregister(name)
    assert told == [(session, nn.Linear)]


def test_a_finalized_model_can_be_attached_again(build):
    model = build()
    tersely.prune(model, CONFIG, algorithm="toy").finalize()
    again = tersely.prune(model, [{**CONFIG[0], "sparse_ratio": 0.75}], algorithm="toy")
    assert again.sparsity()["0"]["weight"] == 0.75


def test_a_model_converted_while_attached_is_finalized_in_its_new_dtype(build):
    model = build()
    session = tersely.prune(model, CONFIG, algorithm="toy")
    model.half()
    session.finalize()
    assert model[0].weight.dtype is torch.float16
    assert int((model[0].weight == 0).sum()) == 16
