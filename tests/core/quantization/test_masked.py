"""Pruning and quantization in one recipe: ranges are those of the pruned model (rule Q5.1)."""

import pytest
import torch
from torch import nn

import tersely

BOTH = {
    "pruning": {
        "algorithm": "toy",
        "config_list": [{"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.5}],
    },
    "quantization": {
        "algorithm": "toy_range",
        "config_list": [
            {"op_names": ["1"], "target_names": ["_input_"]},
            {"op_names": ["0"], "target_names": ["weight"]},
        ],
    },
}
ONES = torch.ones(1, 2)


@pytest.fixture
def model():
    """Its first layer puts out 3.5 and 1, and 3 and 1 when half of its weight is pruned."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, 0.5], [0.0, 1.0]]))
    return model


def failing():
    """The same with an algorithm that fails at a weight, which comes before all inputs."""
    stage = {**BOTH["quantization"], "algorithm": "toy_fails", "options": {"at": "0.weight"}}
    return {**BOTH, "quantization": stage}


def scale_of(session):
    return session.qparams()["1"]["_input_"].scale.item()


def test_batches_are_observed_again_once_masks_are_in_force(model):
    session = tersely.attach(model, BOTH)
    session.calibrate(iter([ONES]))
    session.compress()

    # 3 in 127 steps, give or take the step of 3 / 127 that the weight is rounded to.
    assert scale_of(session) == pytest.approx(3 / 127)
    assert session.masks()["0"]["weight"].tolist() == [[True, False], [False, True]]


def test_a_masked_weight_stays_zero(model):
    session = tersely.attach(model, BOTH)
    session.calibrate([ONES])
    session.compress()

    assert model[0].weight.tolist()[0][1] == 0
    assert session.integer_weights()["0"]["weight"].values.tolist() == [[127, 0], [0, 42]]
    with pytest.warns(tersely.session.finalizing.baking.FinalizeWarning):
        session.finalize()
    # 42 steps of 3 / 127
    torch.testing.assert_close(
        model[0].weight.detach(), torch.tensor([[3.0, 0.0], [0.0, 126 / 127]])
    )


def test_after_an_error_ranges_are_still_those_of_the_pruned_model(model, mend):
    session = tersely.attach(model, failing())
    session.calibrate([ONES])
    with pytest.raises(tersely.PluginError):
        session.compress()
    mend()

    session.compress()

    assert scale_of(session) == pytest.approx(3 / 127)


def test_a_loaded_session_without_its_batches_says_so(model, tmp_path):
    session = tersely.attach(model, BOTH)
    session.calibrate([ONES])
    session.save(tmp_path / "session")
    session.detach()
    again = tersely.load_session(model, tmp_path / "session")

    with pytest.raises(
        tersely.SessionError,
        match=r"1\._input_ was calibrated before the session was loaded, and weights or masks "
        r"have changed since; call session\.calibrate\(batches\) again",
    ):
        again.compress()
    again.calibrate([ONES])
    again.compress()
    assert scale_of(again) == pytest.approx(3 / 127)


def test_masks_are_taken_back_when_scales_cannot_be_chosen(model):
    session = tersely.attach(model, failing())
    session.calibrate([ONES])
    with pytest.raises(tersely.PluginError):
        session.compress()

    assert session.masks() == {}
    assert not session.is_compressed
    assert session.history == []
