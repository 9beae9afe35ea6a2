"""Computing masks: all of them or none, whatever an algorithm does."""

import pytest
import torch
from messages.plugins import SCORES_EXPECTED
from messages.sessions import NOTHING_KEPT
from torch import nn

import tersely

CONFIG = [{"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}]


def recipe(algorithm, *entries, **stage):
    return {"pruning": {"algorithm": algorithm, "config_list": list(entries or CONFIG), **stage}}


def fail_at(name):
    def score(target):
        if target.name == name:
            raise RuntimeError("this algorithm has a bug")
        return target.tensor.abs()

    return score


@pytest.fixture
def odd_session(odd, build):
    return tersely.attach(build(), recipe("toy_odd"))


def test_half_of_each_weight_is_masked(odd_session):
    odd_session.compress()
    assert odd_session.sparsity() == {"0": {"weight": 0.5}, "2": {"weight": 0.5}}


def test_an_algorithm_that_fails_leaves_no_mask_at_all(odd, odd_session):
    odd.score = fail_at("2.weight")
    with pytest.raises(tersely.PluginError, match="this algorithm has a bug"):
        odd_session.compress()
    assert odd_session.masks() == {}
    assert odd_session.history == []
    assert not any(one.numel() for one in odd_session.model.buffers())


def test_an_algorithm_that_fails_later_leaves_the_masks_in_force(odd, odd_session):
    odd_session.compress()
    before = odd_session.model.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    odd.score = fail_at("2.weight")
    with pytest.raises(tersely.PluginError, match="this algorithm has a bug"):
        odd_session.compress()
    after = odd_session.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert len(odd_session.history) == 1


def test_an_algorithm_that_fails_is_named_with_its_target_and_its_error(odd, odd_session):
    odd.score = fail_at("2.weight")
    with pytest.raises(tersely.PluginError) as caught:
        odd_session.compress()
    assert str(caught.value) == (
        "toy_odd failed on 2.weight: RuntimeError: this algorithm has a bug"
    )
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_algorithm_may_raise_errors_of_tersely(odd, odd_session):
    def score(target):
        raise tersely.SessionError("run calibrate() twice")

    odd.score = score
    with pytest.raises(tersely.SessionError, match=r"run calibrate\(\) twice"):
        odd_session.compress()


def test_scores_of_a_wrong_shape_are_an_error_that_names_the_algorithm(odd, odd_session):
    odd.score = lambda target: target.tensor.abs().sum(0)
    with pytest.raises(tersely.PluginError) as caught:
        odd_session.compress()
    assert str(caught.value) == (
        "toy_odd returned scores of shape [4] for 0.weight; expected the tensor's shape [8, 4] or "
        "one score per block, shape [8, 4]"
    )


def test_scores_that_are_no_tensor_are_an_error_that_names_the_algorithm(odd, odd_session):
    odd.score = lambda target: 3.5
    with pytest.raises(tersely.PluginError) as caught:
        odd_session.compress()
    assert str(caught.value) == f"toy_odd returned a float for 0.weight; {SCORES_EXPECTED}"


def test_scores_that_are_not_finite_are_an_error_and_nothing_is_masked(odd, odd_session):
    odd.score = lambda target: target.tensor.abs() / 0
    with pytest.raises(
        tersely.CalibrationError, match=r"0\.weight: .* importances by .* are not finite"
    ):
        odd_session.compress()
    assert odd_session.masks() == {}


def test_scores_per_element_are_summed_over_each_block(odd, toy_halves):
    model = nn.Sequential(nn.Linear(2, 4, bias=False))
    odd.score = lambda target: torch.tensor([[9.0, 0.0], [0.0, 0.0], [3.0, 3.0], [3.0, 3.0]])
    entry = {"op_names": ["0"], "sparse_ratio": 0.5, "granularity": "toy_halves"}
    session = tersely.prune(model, [entry], algorithm="toy_odd")
    assert session.masks()["0"]["weight"].tolist() == [[False] * 2] * 2 + [[True] * 2] * 2


def test_scores_per_block_are_taken_as_they_are(odd, toy_halves):
    model = nn.Sequential(nn.Linear(2, 4, bias=False))
    odd.score = lambda target: torch.tensor([[2.0], [1.0]])
    entry = {"op_names": ["0"], "sparse_ratio": 0.5, "granularity": "toy_halves"}
    session = tersely.prune(model, [entry], algorithm="toy_odd")
    assert session.masks()["0"]["weight"].tolist() == [[True] * 2] * 2 + [[False] * 2] * 2


def test_a_mask_whose_blocks_do_not_broadcast_is_repeated_over_them(odd, toy_halves):
    model = nn.Sequential(nn.Linear(2, 4, bias=False))
    entry = {"op_names": ["0"], "sparse_ratio": 0.5, "granularity": "toy_halves"}
    session = tersely.prune(model, [entry], algorithm="toy_odd")
    assert model[0]._buffers["_tersely_weight_mask"].shape == (4, 2)
    assert session.sparsity()["0"]["weight"] == 0.5


def test_an_algorithm_sees_the_raw_weight_without_a_graph(odd, build):
    seen = []
    odd.score = lambda target: seen.append(target) or target.tensor.abs()
    model = build()
    raw = model[0].weight
    tersely.prune(model, CONFIG, algorithm="toy_odd").compress()
    assert all(not target.tensor.requires_grad for target in seen)
    assert seen[0].tensor.data_ptr() == raw.data_ptr()
    assert torch.equal(seen[2].tensor, raw)
    assert [target.name for target in seen[:2]] == ["0.weight", "2.weight"]
    assert seen[0].module is model[0]


def test_an_algorithm_that_cannot_be_made_with_its_options_is_an_error(odd, build, monkeypatch):
    import sys

    def fail(**options):
        raise TypeError("no options please")

    monkeypatch.setattr(sys.modules["tersely_odd"], "Odd", fail)
    model = build()
    with pytest.raises(tersely.PluginError) as caught:
        tersely.attach(model, recipe("toy_odd"))
    assert str(caught.value) == (
        "pruning: toy_odd could not be made with options {}: TypeError: no options please"
    )
    assert isinstance(caught.value.__cause__, TypeError)
    assert type(model[0]) is nn.Linear


@pytest.mark.filterwarnings(f"ignore:.*{NOTHING_KEPT}")
@pytest.mark.parametrize("ratio", [0, 1])
def test_a_ratio_of_zero_or_one_masks_nothing_or_everything(toy_pruners, build, data, ratio):
    model = build()
    dense = model(data)
    session = tersely.prune(
        model, [{"op_types": ["Linear"], "sparse_ratio": ratio}], algorithm="toy"
    )
    assert session.sparsity()["0"]["weight"] == ratio
    expected = torch.zeros_like(dense) if ratio else dense
    assert torch.equal(model(data), expected)


def test_a_target_without_a_request_keeps_everything(toy_pruners, build, data):
    model = build()
    dense = model(data)
    session = tersely.prune(model, [{"op_types": ["Linear"]}], algorithm="toy")
    assert session.sparsity()["0"] == {"weight": 0.0, "bias": 0.0}
    assert torch.equal(model(data), dense)


def test_a_parameter_that_was_set_to_none_meanwhile_is_an_error(toy_pruners, build):
    model = build()
    session = tersely.prune(model, CONFIG, algorithm="toy")
    model[0].weight = None
    with pytest.raises(tersely.SessionError) as caught:
        session.compress()
    assert str(caught.value) == "0.weight was set to None after the session was attached"


def test_two_stages_prune_with_two_algorithms(odd, build):
    stages = [
        {"algorithm": "toy", "config_list": [{"op_names": ["0"], "sparse_ratio": 0.25}]},
        {"algorithm": "toy_odd", "config_list": [{"op_names": ["2"], "sparse_ratio": 0.5}]},
    ]
    odd.score = lambda target: -target.tensor.abs()
    model = build()
    session = tersely.attach(model, {"pruning": stages})
    session.compress()
    assert session.sparsity()["0"]["weight"] == 0.25
    raw = model._modules["2"]._parameters["weight"].abs()
    kept = session.masks()["2"]["weight"]
    assert raw[kept].max() < raw[~kept].min()


def test_the_history_counts_what_is_masked_of_all_elements(toy_pruners, build):
    session = tersely.prune(build(), CONFIG, algorithm="toy")
    assert session.history == [{"step": 0, "event": "compress", "sparsity": 0.5}]


def test_a_plugin_is_told_of_new_masks(toy_pruners, build):
    told = []

    class Observer:
        @tersely.hookimpl
        def tersely_masks_updated(self, session, sparsity):
            told.append((session, sparsity))

    name = tersely.registry().register(Observer(), name="observer")
    try:
        session = tersely.prune(build(), CONFIG, algorithm="toy")
    finally:
        tersely.registry().unregister(name)
    assert told == [(session, session.sparsity())]


def test_an_observer_that_objects_does_not_undo_the_masks(toy_pruners, build):
    class Observer:
        @tersely.hookimpl
        def tersely_masks_updated(self, session):
            raise tersely.PlanError("too sparse")

    session = tersely.attach(build(), recipe("toy"))
    name = tersely.registry().register(Observer(), name="observer")
    try:
        with pytest.raises(tersely.PlanError, match="too sparse"):
            session.compress()
    finally:
        tersely.registry().unregister(name)
    assert session.sparsity()["0"]["weight"] == 0.5
    session.step()


def test_an_output_of_no_elements_is_masked_without_a_complaint(toy_pruners):
    model = nn.Sequential(nn.Identity())
    entry = {
        "op_names": ["0"],
        "target_names": ["_output_"],
        "target_settings": {"_output_": {"sparse_ratio": 0.5}},
    }
    session = tersely.prune(model, [entry], algorithm="toy", data=[torch.ones(2, 0)])
    assert session.sparsity() == {"0": {"_output_": 0.0}}
