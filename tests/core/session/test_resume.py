"""Saving and loading: training goes on bit for bit; what does not fit leaves the model untouched."""

import json
import sys

import pytest
import torch
from messages.planning import NOT_IN_MODEL, PLAN_AGAIN
from safetensors.torch import load_file
from torch import nn

import tersely
from tersely.storage.session_folder import save_session

pytestmark = pytest.mark.usefixtures("toy_pruners")

CONFIG = [{"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}]
GRADUAL = {
    "pruning": {
        "algorithm": "toy",
        "schedule": {"name": "toy_line", "begin": 1, "every": 2, "times": 4},
        "config_list": [
            {"op_types": ["Linear"], "sparse_ratio": 0.75},
            {"op_names": ["1"], "target_names": ["_output_"], "sparse_ratio": 0.5},
        ],
    }
}


def start(model, data):
    session = tersely.attach(model, GRADUAL)
    session.calibrate([data])
    session.compress()
    return session


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=0.05, weight_decay=0.01)


def train(model, session, optimizer, data, steps):
    for _ in range(steps):
        model(data).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        session.step()


def test_training_goes_on_bit_for_bit_in_the_middle_of_a_schedule(build, data, tmp_path):
    whole = build()
    session, optimizer = start(whole, data), adam(whole)
    train(whole, session, optimizer, data, 12)

    first = build()
    first_session, first_optimizer = start(first, data), adam(first)
    train(first, first_session, first_optimizer, data, 4)
    first_session.save(tmp_path)
    checkpoint = {name: value.clone() for name, value in first.named_parameters()}
    state = first_optimizer.state_dict()

    second = build()
    second.load_state_dict(checkpoint)
    second_optimizer = adam(second)
    second_optimizer.load_state_dict(state)
    second_session = tersely.load_session(second, tmp_path)
    train(second, second_session, second_optimizer, data, 8)

    for one, other in zip(second.state_dict().items(), whole.state_dict().items(), strict=True):
        assert one[0] == other[0]
        assert torch.equal(one[1], other[1])
    assert second_session.history == session.history
    assert second_session.steps == session.steps == 12
    assert torch.equal(second_session.masks()["1"]["_output_"], session.masks()["1"]["_output_"])


def test_a_session_saved_before_compress_goes_on_from_there(build, data, tmp_path):
    tersely.attach(build(), GRADUAL).save(tmp_path)
    model = build()
    session = tersely.load_session(model, tmp_path)
    assert session.masks() == {}
    with pytest.raises(tersely.SessionError, match=r"call session\.compress\(\)"):
        session.step()


def test_calibration_is_saved_with_a_session(build, data, tmp_path):
    first = tersely.attach(build(), GRADUAL)
    first.calibrate([data])
    first.save(tmp_path)
    session = tersely.load_session(build(), tmp_path)
    session.compress()
    for _ in range(9):
        session.step()
    assert session.sparsity()["1"]["_output_"] == 0.5
    assert session.masks()["1"]["_output_"].shape == (8,)


def test_metrics_are_saved_with_a_session(build, tmp_path):
    first = tersely.prune(build(), CONFIG, algorithm="toy")
    first.metrics["before.accuracy"] = 0.9
    first.save(tmp_path)
    assert tersely.load_session(build(), tmp_path).metrics == {"before.accuracy": 0.9}


@pytest.mark.parametrize("method", ["mul", "add"])
def test_masks_come_back_however_they_are_applied(build, data, tmp_path, method):
    setting = {"sparse_ratio": 0.5, "apply_method": method}
    entry = {
        "op_names": ["0"],
        "target_names": ["weight"],
        "target_settings": {"weight": setting},
    }
    model = build()
    first = tersely.prune(model, [entry], algorithm="toy")
    first.save(tmp_path)
    other = build()
    session = tersely.load_session(other, tmp_path)
    assert torch.equal(session.masks()["0"]["weight"], first.masks()["0"]["weight"])
    assert torch.equal(other(data), model(data))


def test_a_structured_mask_comes_back_at_block_shape(build, tmp_path):
    tersely.prune(build(), CONFIG, algorithm="toy_rows").save(tmp_path)
    model = build()
    tersely.load_session(model, tmp_path)
    assert model[0]._buffers["_tersely_weight_mask"].shape == (8, 1)


def test_a_session_loads_into_a_model_of_another_dtype(build, tmp_path):
    tersely.prune(build(), CONFIG, algorithm="toy").save(tmp_path)
    model = build().double()
    tersely.load_session(model, tmp_path)
    assert model[0]._buffers["_tersely_weight_mask"].dtype is torch.float64


def test_a_saved_session_does_not_hold_the_models_weights(build, tmp_path):
    tersely.prune(build(), CONFIG, algorithm="toy").save(tmp_path)
    (place,) = tmp_path.glob("state-*.safetensors")
    stored = load_file(place)
    assert sorted(stored) == ["mask:0.weight", "mask:2.weight"]
    assert {tensor.dtype for tensor in stored.values()} == {torch.uint8}


def test_masks_are_stored_one_bit_an_element(build, tmp_path):
    session = tersely.prune(build(), CONFIG, algorithm="toy")
    kept = session.state()[0]
    session.save(tmp_path)
    (place,) = tmp_path.glob("state-*.safetensors")
    sizes = {name: tensor.numel() for name, tensor in load_file(place).items()}
    assert sizes == {name: -(-mask.numel() // 8) for name, mask in kept.items()}


def test_saving_again_replaces_the_session(build, tmp_path):
    session = tersely.prune(build(), CONFIG, algorithm="toy")
    session.save(tmp_path)
    session.step()
    session.save(tmp_path)
    assert tersely.load_session(build(), tmp_path).steps == 1


class TestWhatDoesNotFit:
    """Each error leaves the model that was to be loaded exactly as it was."""

    @pytest.fixture
    def saved(self, build, tmp_path):
        tersely.prune(build(), CONFIG, algorithm="toy").save(tmp_path)
        return tmp_path

    @staticmethod
    def refused(model, folder):
        classes = [type(module) for module in model.modules()]
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(tersely.SessionFileError) as caught:
            tersely.load_session(model, folder)
        assert [type(module) for module in model.modules()] == classes
        after = model.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[name], value) for name, value in before.items())
        assert not any("_tersely_instruments" in vars(module) for module in model.modules())
        return str(caught.value)

    def test_a_model_without_one_of_the_modules(self, saved):
        assert self.refused(nn.Sequential(nn.Linear(4, 8)), saved) == (
            f"{saved}: it does not fit this model: the plan has module '2', "
            f"{NOT_IN_MODEL}; {PLAN_AGAIN}"
        )

    def test_a_model_of_another_shape(self, saved):
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        assert self.refused(model, saved) == (
            f"{saved}: it does not fit this model: the plan has 2.weight with shape [2, 8], "
            f"the model has shape [3, 8] there; {PLAN_AGAIN}"
        )

    def test_a_session_whose_algorithm_is_not_installed(self, build, odd, tmp_path):
        tersely.prune(build(), CONFIG, algorithm="toy_odd").save(tmp_path)
        tersely.registry().unregister("tersely-odd")
        try:
            text = self.refused(build(), tmp_path)
        finally:
            tersely.registry().register(odd.face, name="tersely-odd")
        assert text.startswith(f"{tmp_path}: its plan cannot be used with what is installed now: ")
        assert "toy_odd" in text

    def test_a_session_whose_algorithm_cannot_be_imported(self, build, odd, tmp_path, monkeypatch):
        tersely.prune(build(), CONFIG, algorithm="toy_odd").save(tmp_path)
        monkeypatch.delattr(sys.modules["tersely_odd"], "Odd")
        model = build()
        with pytest.raises(tersely.BrokenPluginError, match="toy_odd"):
            tersely.load_session(model, tmp_path)
        assert type(model[0]) is nn.Linear

    def test_a_session_whose_state_is_of_another_plan(self, build, tmp_path):
        session = tersely.prune(build(), CONFIG, algorithm="toy")
        tensors, data = session.state()
        plan, document = session.plan.to_dict(), dict(session.plan.recipe.document)
        del tensors["mask:0.weight"]
        save_session(tmp_path, tensors=tensors, data=data, plan=plan, recipe=document, plugins=[])
        assert self.refused(build(), tmp_path) == (
            f"{tmp_path / 'session.json'}: the saved session lacks the mask of 0.weight"
        )

    @pytest.mark.parametrize(
        ("path", "value", "complaint"),
        [
            (("steps",), -1, "data.steps: -1 is less than the minimum of 0"),
            (("history",), None, "data.history: None is not of type 'array'"),
            (("metrics",), {"before": "high"}, "data.metrics.before: 'high' is not of type"),
            (("history", 0, "sparsity"), "half", r"data.history\[0\].sparsity: 'half' is not of"),
            (("pruning",), [1], "lacks a part of its state|cannot be restored|damaged"),
            (("pruning",), None, "lacks a part of its state"),
        ],
    )
    def test_a_part_of_the_data_that_was_made_to_fit_is_still_checked(
        self, build, tmp_path, path, value, complaint
    ):
        session = tersely.prune(build(), CONFIG, algorithm="toy")
        tensors, data = session.state()
        plan, document = session.plan.to_dict(), dict(session.plan.recipe.document)
        holder = data = json.loads(json.dumps(data))
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = value
        save_session(tmp_path, tensors=tensors, data=data, plan=plan, recipe=document, plugins=[])
        model = build()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

        with pytest.raises(tersely.SessionFileError, match=complaint) as caught:
            tersely.load_session(model, tmp_path)

        assert str(tmp_path / "session.json") in str(caught.value)
        assert type(model[0]) is nn.Linear
        assert all(torch.equal(before[name], one) for name, one in model.state_dict().items())

    @pytest.mark.parametrize("key", ["recipe", "targets", "shadowed"])
    def test_a_plan_that_was_made_to_fit_is_still_checked(self, build, tmp_path, key):
        session = tersely.prune(build(), CONFIG, algorithm="toy")
        tensors, data = session.state()
        plan = {**session.plan.to_dict(), key: 7}
        save_session(tmp_path, tensors=tensors, data=data, plan=plan, recipe={}, plugins=[])

        with pytest.raises(tersely.SessionFileError, match=str(tmp_path)):
            tersely.load_session(build(), tmp_path)

    def test_a_state_with_a_mask_of_another_plan(self, build):
        session = tersely.attach(build(), GRADUAL)
        _, data = session.state()
        with pytest.raises(tersely.SessionFileError) as caught:
            session.restore({"mask:3.weight": torch.ones(1, dtype=torch.bool)}, data)
        assert str(caught.value) == (
            "the saved session has 'mask:3.weight', which its plan does not know"
        )

    @pytest.mark.parametrize(
        ("mask", "found"),
        [
            (torch.ones(8, 5, dtype=torch.bool), "bool of shape [8, 5]"),
            (torch.ones(8, dtype=torch.bool), "bool of shape [8]"),
            (torch.ones(8, 4), "float32 of shape [8, 4]"),
        ],
        ids=["another_length", "another_rank", "another_dtype"],
    )
    def test_a_state_with_a_mask_that_does_not_fit(self, build, mask, found):
        session = tersely.attach(build(), GRADUAL)
        _, data = session.state()
        with pytest.raises(tersely.SessionFileError) as caught:
            session.restore({"mask:0.weight": mask}, data)
        assert str(caught.value) == (
            f"the saved mask of 0.weight is {found}, expected bool that fits the model's [8, 4]"
        )

    def test_a_state_that_lacks_a_part(self, build):
        session = tersely.attach(build(), GRADUAL)
        tensors, data = session.state()
        del data["steps"]
        with pytest.raises(tersely.SessionFileError) as caught:
            session.restore(tensors, data)
        assert str(caught.value) == "the saved session lacks a part of its state: KeyError('steps')"

    @pytest.mark.parametrize(
        ("method", "key"),
        [
            ("pruning", "is_compressed"),
            ("pruning", "handed_over"),
            ("pruning", "frozen"),
            ("quantization", "seen"),
            ("quantization", "handed_over"),
            ("distillation", "projections"),
        ],
    )
    def test_a_state_that_lacks_a_part_of_one_method(self, build, method, key):
        session = tersely.prune(build(), CONFIG, algorithm="toy")
        tensors, data = session.state()
        del data[method][key]
        model = build()
        other = tersely.attach(model, {"pruning": {"algorithm": "toy", "config_list": CONFIG}})
        with pytest.raises(tersely.SessionFileError, match=f"lacks a part of its state.*{key}"):
            other.restore(tensors, data)
        # Masks come before most of it, and are taken back.
        assert other.masks() == {}
        assert not other.is_compressed

    def test_a_compressed_state_that_lacks_a_mask(self, build):
        session = tersely.prune(build(), CONFIG, algorithm="toy")
        tensors, data = session.state()
        del tensors["mask:2.weight"]
        before = session.masks()
        with pytest.raises(tersely.SessionFileError) as caught:
            session.restore(tensors, data)
        assert str(caught.value) == "the saved session lacks the mask of 2.weight"
        assert torch.equal(session.masks()["2"]["weight"], before["2"]["weight"])


def test_restoring_an_earlier_state_takes_masks_off_again(build):
    model = build()
    session = tersely.attach(model, {"pruning": {"algorithm": "toy", "config_list": CONFIG}})
    tensors, data = session.state()
    session.compress()
    session.restore(tensors, data)
    assert session.masks() == {}
    assert model[0].weight is model[0]._parameters["weight"]


def test_a_state_is_plain_json_and_a_copy(build):
    session = tersely.prune(build(), CONFIG, algorithm="toy")
    tensors, data = session.state()
    assert json.loads(json.dumps(data)) == data
    data["history"][0]["step"] = 99
    tensors["mask:0.weight"].zero_()
    assert session.history[0]["step"] == 0
    assert session.sparsity()["0"]["weight"] == 0.5


def test_a_deep_copied_model_keeps_the_masks_of_a_loaded_session(build, data, tmp_path):
    tersely.prune(build(), CONFIG, algorithm="toy").save(tmp_path)
    model = build()
    session = tersely.load_session(model, tmp_path)
    expected = model(data)
    session.finalize()
    assert torch.equal(model(data), expected)
