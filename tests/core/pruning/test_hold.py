"""``hold: step``: masked elements are zero in the parameter itself (rules B9.5 to B9.8)."""

import copy
import pickle

import pytest
import torch
from torch import nn

import tersely

WEIGHT = {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}


def recipe(*, hold="step", algorithm="toy", entry=WEIGHT, **keys):
    stage = {"algorithm": algorithm, "config_list": [entry], **keys}
    return {"pruning": {**stage, "hold": hold} if hold else stage}


@pytest.fixture
def layer(toy_pruners):
    """One linear layer with the weights 1 to 4, which half of a mask keeps as [[0, 0], [3, 4]]."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    return model


def raw(model, name="weight"):
    return dict(model[0].named_parameters())[name].detach()


def compressed(model, **keys):
    session = tersely.attach(model, recipe(**keys))
    session.compress()
    return session


def train(model, session, steps, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(3, model[0].in_features, generator=generator)).square().mean().backward()
        optimizer.step()
        session.step()


def test_the_parameter_itself_is_zero_where_it_is_masked(layer):
    compressed(layer)
    assert raw(layer).tolist() == [[0, 0], [3, 4]]
    assert layer[0].weight is layer[0]._parameters["weight"]


def test_read_leaves_the_parameter_dense(layer):
    compressed(layer, hold="read")
    assert raw(layer).tolist() == [[1, 2], [3, 4]]
    assert layer[0].weight.tolist() == [[0, 0], [3, 4]]


def test_read_is_the_default(layer):
    compressed(layer, hold=None)
    assert raw(layer).tolist() == [[1, 2], [3, 4]]


def test_a_step_zeroes_what_the_optimizer_moved(layer):
    session = compressed(layer)
    with torch.no_grad():
        raw(layer).add_(1)
    session.step()
    assert raw(layer).tolist() == [[0, 0], [4, 5]]


def test_detach_gives_masked_elements_the_values_they_had_when_they_were_masked(layer):
    session = compressed(layer)
    with torch.no_grad():
        raw(layer).add_(1)
    session.step()
    session.detach()
    assert raw(layer).tolist() == [[1, 2], [4, 5]]


def test_state_dict_keys_are_those_of_read(layer):
    twin = copy.deepcopy(layer)
    compressed(layer)
    compressed(twin, hold="read")
    assert list(layer.state_dict()) == list(twin.state_dict())


def test_finalize_keeps_zeros_that_training_moved_since_the_last_step(layer):
    session = compressed(layer)
    with torch.no_grad():
        raw(layer).add_(1)
    session.finalize()
    assert raw(layer).tolist() == [[0, 0], [4, 5]]


def test_an_element_that_a_later_mask_keeps_has_its_dense_value_again(layer):
    session = compressed(layer)
    kept = torch.tensor([[True, False], [False, True]])
    session.set_masks({"0": {"weight": kept}})
    assert raw(layer).tolist() == [[1, 0], [0, 4]]
    session.detach()
    assert raw(layer).tolist() == [[1, 2], [3, 4]]


def test_a_schedule_ranks_masked_elements_by_their_dense_values(layer):
    schedule = {"name": "toy_line", "every": 1, "times": 2}
    entry = {**WEIGHT, "sparse_ratio": 0.5}
    session = compressed(layer, schedule=schedule, entry=entry)
    session.step()
    assert raw(layer).tolist() == [[0, 2], [3, 4]]
    with torch.no_grad():
        raw(layer).copy_(torch.tensor([[0.0, 0.5], [0.25, 4.0]]))
    session.step()
    assert raw(layer).tolist() == [[1, 0], [0, 4]]


def test_kept_weights_train_alike_either_way(build, toy_pruners):
    plain, model = build(), build()
    for one, how in ((plain, "read"), (model, "step")):
        train(one, compressed(one, hold=how), 5)
    assert torch.equal(plain[0].weight, raw(model))
    assert torch.equal(plain[2].weight, model[2].weight)


def test_a_row_that_is_masked_is_zero_with_its_aligned_bias(build, toy_pruners):
    model = build()
    dense = model[0].bias.detach().clone()
    bias = {"align": {"target_name": "weight", "dims": [0]}}
    entry = {"op_names": ["0"], "sparse_ratio": 0.5, "target_settings": {"bias": bias}}
    session = compressed(model, algorithm="toy_rows", entry=entry)
    rows = session.masks()["0"]["bias"]
    assert torch.equal(raw(model, "bias"), dense * rows)
    assert torch.equal(raw(model).abs().sum(1) != 0, rows)
    session.detach()
    assert torch.equal(raw(model, "bias"), dense)


def test_a_tied_weight_is_zeroed_once_for_all_holders(toy_pruners):
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    dense = raw(model).clone()
    session = compressed(model)
    assert model[1].weight is model[0].weight
    assert int((raw(model) == 0).sum()) == 2
    model.load_state_dict(model.state_dict())
    session.detach()
    assert torch.equal(raw(model), dense)


def test_a_dense_checkpoint_is_masked_in_place_and_given_back_as_it_was_loaded(layer):
    session = compressed(layer)
    layer.load_state_dict({"0.weight": torch.tensor([[5.0, 6.0], [7.0, 8.0]])})
    assert raw(layer).tolist() == [[0, 0], [7, 8]]
    session.detach()
    assert raw(layer).tolist() == [[5, 6], [7, 8]]


def test_a_checkpoint_of_a_held_model_says_nothing_of_masked_elements(layer):
    session = compressed(layer)
    layer.load_state_dict(copy.deepcopy(layer.state_dict()))
    session.detach()
    assert raw(layer).tolist() == [[1, 2], [3, 4]]


def test_a_checkpoint_may_bring_another_mask(layer):
    session = compressed(layer)
    state = copy.deepcopy(layer.state_dict())
    state["0.weight"] = torch.tensor([[5.0, 0.0], [0.0, 8.0]])
    state["0._tersely_weight_mask"] = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    layer.load_state_dict(state)
    assert raw(layer).tolist() == [[5, 0], [0, 8]]
    session.step()
    assert raw(layer).tolist() == [[5, 0], [0, 8]]


def test_a_saved_session_goes_on_bit_for_bit(build, toy_pruners, tmp_path):
    schedule = {"name": "toy_line", "every": 2, "times": 3}
    model = build()
    session = compressed(model, schedule=schedule)
    train(model, session, 3)
    session.save(tmp_path / "session")
    other = build()
    other.load_state_dict({k: v for k, v in model.state_dict().items() if "_tersely" not in k})
    resumed = tersely.load_session(other, tmp_path / "session")
    for one, its in ((model, session), (other, resumed)):
        train(one, its, 3, seed=1)
        its.detach()
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_dense_values_of_another_number_are_refused(layer):
    session = compressed(layer)
    tensors, data = session.state()
    tensors["dense:0.weight"] = torch.zeros(3)
    with pytest.raises(tersely.SessionFileError) as caught:
        session.restore(tensors, data)
    assert str(caught.value) == "the saved dense tensor of 0.weight has shape [3], expected [2]"
    assert raw(layer).tolist() == [[0, 0], [3, 4]]


def test_an_error_leaves_masks_and_values_as_they_were(odd):
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    session = compressed(model, algorithm="toy_odd")
    odd.score = lambda target: target.tensor * float("nan")
    with pytest.raises(tersely.CalibrationError):
        session.compress()
    assert raw(model).tolist() == [[0, 0], [3, 4]]
    session.detach()
    assert raw(model).tolist() == [[1, 2], [3, 4]]


def test_a_copy_of_the_model_is_masked_on_read(layer):
    compressed(layer)
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        raw(twin).add_(1)
    assert twin[0].weight.tolist() == [[0, 0], [4, 5]]


def test_a_copied_session_keeps_the_dense_values_too(layer):
    twin = copy.deepcopy(compressed(layer))
    twin.step()
    twin.detach()
    assert raw(twin.model).tolist() == [[1, 2], [3, 4]]
    assert raw(layer).tolist() == [[0, 0], [3, 4]]


def test_a_pickled_model_is_masked_on_read(layer):
    compressed(layer)
    twin = pickle.loads(pickle.dumps(layer))  # our own bytes
    with torch.no_grad():
        raw(twin).add_(1)
    assert twin[0].weight.tolist() == [[0, 0], [4, 5]]


def test_an_average_of_the_model_is_masked(layer):
    session = compressed(layer)
    average = torch.optim.swa_utils.AveragedModel(layer)
    for _ in range(2):
        with torch.no_grad():
            raw(layer).add_(1)
        session.step()
        average.update_parameters(layer)
    assert average.module[0].weight.tolist() == [[0, 0], [4.5, 5.5]]


def test_an_average_that_is_written_into_the_model_is_evaluated_masked(layer):
    session = compressed(layer)
    raw(layer).data.copy_(torch.tensor([[1.5, 2.5], [3.5, 4.5]]))
    assert layer.eval()(torch.ones(1, 2)).tolist() == [[0, 8]]
    before = layer[0].weight.tolist()
    session.finalize()
    assert layer[0].weight.tolist() == before == [[0, 0], [3.5, 4.5]]


def test_a_compiled_model_computes_with_the_masked_weight(layer):
    session = compressed(layer)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    x = torch.ones(1, 2)
    assert compiled(x).tolist() == [[0, 7]]
    session.set_masks({"0": {"weight": torch.tensor([[True, False], [False, True]])}})
    assert compiled(x).tolist() == [[1, 4]]


def test_moving_the_model_moves_what_is_kept(layer):
    session = compressed(layer)
    layer.double()
    session.step()
    session.detach()
    assert raw(layer).dtype == torch.float64
    assert raw(layer).tolist() == [[1, 2], [3, 4]]


def test_gradients_of_masked_elements_have_no_effect(build, toy_pruners):
    model = build()
    session = compressed(model)
    masks = session.masks()
    train(model, session, 3)
    for name, targets in masks.items():
        weight = dict(model.named_parameters())[f"{name}.weight"]
        assert not bool(weight[~targets["weight"]].any())


def test_added_masks_are_refused(layer):
    with pytest.raises(tersely.PlanError) as caught:
        tersely.attach(layer, recipe(entry={**WEIGHT, "apply_method": "add"}))
    assert str(caught.value) == (
        "pruning.hold: with step, masked elements are zero in the parameter itself, and 0.weight "
        "has apply_method add; write mul, or read in place of step"
    )
