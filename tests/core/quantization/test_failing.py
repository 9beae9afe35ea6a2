"""What cannot be quantized is refused by name, and an error changes nothing."""

import copy

import pytest
import torch
from torch import nn

import tersely

SHIFT_THEN_FAIL = {
    "quantization": [
        {
            "algorithm": "toy_shift",
            "config_list": [{"op_names": ["0"], "target_names": ["weight"]}],
        },
        {
            "algorithm": "toy_fails",
            "config_list": [{"op_names": ["1"], "target_names": ["weight"]}],
        },
    ]
}


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(model, before):
    after = model.state_dict()
    assert list(after) == list(before)
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name


def test_a_failing_quantizer_leaves_everything_as_it_was(two, mend):
    dense = state_of(two)
    session = tersely.attach(two, SHIFT_THEN_FAIL)
    attached = state_of(two)

    with pytest.raises(tersely.PluginError, match=r"toy_fails failed on 1\.weight: RuntimeError"):
        session.compress()

    assert session.qparams() == {}
    assert_same(two, attached)
    mend()
    session.compress()
    assert sorted(session.qparams()) == ["0", "1"]
    session.detach()
    assert_same(two, dense)


def test_scales_that_are_in_force_stay_in_force(two, mend, monkeypatch):
    session = tersely.attach(two, SHIFT_THEN_FAIL)
    mend()
    session.compress()
    before, buffers = state_of(two), dict(two[0].named_buffers())
    monkeypatch.setattr(tersely.registry().quantizers["toy_fails"], "is_mended", False)

    with pytest.raises(tersely.PluginError):
        session.compress()

    assert_same(two, before)
    assert all(dict(two[0].named_buffers())[name] is one for name, one in buffers.items())


def test_what_is_learned_is_the_same_tensor_after_an_error(two, mend, monkeypatch):
    stage = {"algorithm": "toy_learn", "config_list": [{"op_names": ["0"]}]}
    stage["config_list"][0]["target_names"] = ["weight"]
    session = tersely.attach(two, {"quantization": [stage, SHIFT_THEN_FAIL["quantization"][1]]})
    mend()
    session.compress()
    (1e-4 * two[0].weight.sum()).backward()
    monkeypatch.setattr(tersely.registry().quantizers["toy_fails"], "is_mended", False)
    with pytest.raises(tersely.PluginError):
        session.compress()

    session.step()

    # 127 + 1 - 50 = 78 steps: 0.01 - 0.5 * 78e-4
    assert session.qparams()["0"]["weight"].scale.item() == pytest.approx(0.0061)


def test_weights_that_are_not_finite_are_refused_by_name(two, attach):
    with torch.no_grad():
        two[1].weight[0, 0] = float("nan")
    session = attach(two, "toy_range")

    with pytest.raises(
        tersely.CalibrationError, match=r"1\.weight: 1 of its 4 values are not finite"
    ):
        session.compress()
    assert session.qparams() == {}


def test_an_empty_weight_is_skipped(attach):
    with pytest.warns(UserWarning, match="zero-element"):
        model = nn.Sequential(nn.Linear(0, 2), nn.Linear(2, 2))
    session = attach(model, "toy_range")
    session.compress()
    assert list(session.qparams()) == ["1"]


def test_inputs_that_are_not_finite_are_refused_by_name(two, attach, everything):
    session = attach(two, "toy_range", everything)
    session.calibrate([torch.tensor([[float("inf"), 0.0]])])

    with pytest.raises(tersely.CalibrationError, match=r"0\._input_: 1 of its 1 observed ranges"):
        session.compress()
    assert session.qparams() == {}


def test_integers_as_input_are_refused_by_name(attach):
    model = nn.Sequential(nn.Embedding(3, 2))
    session = attach(model, "toy_range", [{"op_names": ["0"], "target_names": ["_input_"]}])

    with pytest.raises(tersely.CalibrationError, match=r"0\._input_ holds int64, but only"):
        session.calibrate([torch.tensor([0, 2])])


def test_an_empty_input_is_not_seen(two, attach, everything):
    session = attach(two, "toy_range", everything)

    with pytest.raises(tersely.CalibrationError, match=r"not reached in calibration: 0\._input_, "):
        session.calibrate([torch.empty(0, 2)])


def test_forgotten_calibration_is_told(two, attach, everything):
    session = attach(two, "toy_range", everything)

    with pytest.raises(
        tersely.SessionError,
        match=r"0\._input_ is quantized by the range that calibration sees; "
        r"call session\.calibrate\(batches\) before session\.compress\(\)",
    ):
        session.compress()


def test_forgotten_compression_is_told(two, attach):
    session = attach(two, "toy_range")

    with pytest.raises(
        tersely.SessionError,
        match=r"finalize\(\) found no scale of 0\.weight; call session\.compress\(\) first",
    ):
        session.finalize()
    with pytest.raises(tersely.SessionError, match=r"step\(\) found no scale of 0\.weight"):
        session.step()


def test_forgotten_calibration_and_compression_are_told(two, attach):
    session = attach(two, "toy_range", [{"op_names": ["0"], "target_names": ["_input_"]}])
    with pytest.raises(
        tersely.SessionError, match=r"call session\.calibrate\(batches\) and session\.compress\(\)"
    ):
        session.finalize()


def test_ranges_that_training_never_saw_are_told(two, attach):
    session = attach(two, "toy_follow")

    with pytest.raises(
        tersely.SessionError, match=r"train some steps in training mode, or call session\.compress"
    ):
        session.finalize()


def test_a_copy_of_a_failed_model_works(two):
    session = tersely.attach(two, SHIFT_THEN_FAIL)
    with pytest.raises(tersely.PluginError):
        session.compress()

    assert torch.equal(copy.deepcopy(two)(torch.ones(1, 2)), two(torch.ones(1, 2)))
