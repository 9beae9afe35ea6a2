"""Weights that hold infinity or NaN, which neither masks nor scales make right (rule B9.10).

A mask multiplies by 0, and infinity times 0 is NaN.
"""

import math

import pytest
import torch
from torch import nn

import tersely
from tersely import CalibrationError

ENTRY = {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}
KEEP_FIRST = torch.tensor([True, False, False, False])
ONE_OF_FOUR = r"^fc\.weight: 1 of its 4 values are not finite \(the first is {}, at flat index 2\);"


class Blind:
    """Ranks by the place alone, whatever the values are."""

    def importance(self, target):
        return torch.arange(target.tensor.numel()).float().reshape(target.tensor.shape)


class Nearest:
    """Takes the range as it is."""


class Face:
    @tersely.hookimpl
    def tersely_pruners(self):
        return [tersely.PrunerInfo(name="blind", implementation=f"{__name__}:Blind")]

    @tersely.hookimpl
    def tersely_quantizers(self):
        return [tersely.QuantizerInfo(name="nearest", implementation=f"{__name__}:Nearest")]

    @tersely.hookimpl
    def tersely_schedules(self):
        return [tersely.ScheduleInfo(name="line", implementation=f"{__name__}:line")]


def line(progress):
    return progress


@pytest.fixture(autouse=True)
def _registered():
    tersely.registry().register(Face(), name="not_finite")
    yield
    tersely.registry().unregister("not_finite")


def model_with(*values):
    model = nn.Sequential()
    model.fc = nn.Linear(4, 1)
    with torch.no_grad():
        model.fc.weight.copy_(torch.tensor([values]))
        model.fc.bias.fill_(1.0)
    return model


def spoil(model, value=math.inf, name="fc.weight"):
    with torch.no_grad():
        dict(model.named_parameters())[name].view(-1)[-2:][:1] = value


def pruned(model, **stage):
    return tersely.attach(
        model, {"pruning": {"algorithm": "blind", "config_list": [ENTRY], **stage}}
    )


def quantized(model):
    entry = {"op_types": ["Linear"], "target_names": ["weight"]}
    return tersely.attach(model, {"quantization": {"algorithm": "nearest", "config_list": [entry]}})


@pytest.mark.parametrize(
    ("value", "spelled"), [(math.inf, "inf"), (-math.inf, "-inf"), (math.nan, "nan")]
)
@pytest.mark.parametrize("attached", [pruned, quantized])
@pytest.mark.parametrize("call", ["compress", "calibrate"])
def test_the_error_names_the_target_and_how_many_before_anything_changes(
    attached, value, spelled, call
):
    model = model_with(1.0, 2.0, value, 4.0)
    session = attached(model)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    arguments = ([torch.ones(1, 4)],) if call == "calibrate" else ()
    with pytest.raises(CalibrationError, match=ONE_OF_FOUR.format(spelled)) as error:
        getattr(session, call)(*arguments)
    assert error.value.target == "fc.weight"
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[key], equal_nan=True, rtol=0, atol=0)
    session.detach()
    assert model.fc.weight.tolist()[0][:2] == [1.0, 2.0]


def test_masks_that_the_user_sets_are_refused():
    session = pruned(model_with(1.0, 2.0, math.inf, 4.0))
    with pytest.raises(CalibrationError, match=ONE_OF_FOUR.format("inf")):
        session.set_masks({"fc": {"weight": KEEP_FIRST}})
    assert session.masks() == {}


def test_a_follower_is_refused_with_what_it_follows():
    model = model_with(1.0, 2.0, 3.0, 4.0)
    align = {"bias": {"align": {"target_name": "weight", "dims": [0]}}}
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.5, "target_settings": align}
    session = tersely.prune(model, [entry], algorithm="blind")
    with torch.no_grad():
        model.fc.bias.data.fill_(math.inf)
    with pytest.raises(CalibrationError, match=r"^fc\.bias: 1 of its 1 values"):
        session.set_masks({"fc": {"weight": KEEP_FIRST}})
    with pytest.raises(CalibrationError, match=r"^fc\.bias: 1 of its 1 values"):
        session.compress()


def test_scales_that_the_user_sets_are_refused():
    session = quantized(model_with(1.0, 2.0, 3.0, 4.0))
    session.compress()
    given = session.qparams()
    spoil(session.model)
    with pytest.raises(CalibrationError, match=ONE_OF_FOUR.format("inf")):
        session.set_qparams(given)


def test_a_step_with_new_masks_is_refused_and_can_be_made_again():
    model = model_with(1.0, 2.0, 3.0, 4.0)
    session = pruned(model, schedule={"name": "line", "every": 1, "times": 2})
    session.compress()
    spoil(model, math.nan)
    with pytest.raises(CalibrationError, match=ONE_OF_FOUR.format("nan")):
        session.step()
    assert session.steps == 0
    spoil(model, 3.0)
    session.step()
    assert session.sparsity() == {"fc": {"weight": 0.25}}


@pytest.mark.parametrize("attached", [pruned, quantized])
def test_a_model_that_diverged_is_not_finished(attached):
    model = model_with(1.0, 2.0, 3.0, 4.0)
    session = attached(model)
    session.compress()
    spoil(model)
    with pytest.raises(CalibrationError, match=ONE_OF_FOUR.format("inf")):
        session.finalize()
    spoil(model, 3.0)
    session.finalize()
    assert bool(model.fc.weight.isfinite().all())


def test_one_error_names_all_targets_up_to_five():
    model = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(7)))
    for layer in model:
        nn.init.constant_(layer.weight, math.nan)
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.5}
    with pytest.raises(CalibrationError, match=r"0\.weight: 4 of its 4 .*; and 2 more targets;"):
        tersely.prune(model, [entry], algorithm="blind")


def test_large_finite_weights_whose_sum_overflows_are_masked():
    model = model_with(1.0, 3e38, 3e38, 3e38)
    session = tersely.prune(model, [ENTRY], algorithm="blind")
    assert session.masks()["fc"]["weight"].tolist() == [[False, False, True, True]]


class EightBits(nn.Linear):
    def __init__(self, *values):
        super().__init__(len(values), 1)
        weight = torch.tensor([values]).to(torch.float8_e4m3fn)
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x):
        return nn.functional.linear(x, self.weight.to(x.dtype), self.bias)


def test_weights_of_eight_bits_are_masked():
    model = nn.Sequential()
    model.fc = EightBits(1.0, 2.0, 3.0, 4.0)
    config_list = [{"op_names": ["fc"], "target_names": ["weight"], "sparse_ratio": 0.5}]
    session = tersely.attach(model, {"pruning": {"algorithm": "blind", "config_list": config_list}})
    session.compress()
    assert session.finalize().fc.weight.float().tolist() == [[0.0, 0.0, 3.0, 4.0]]


def test_weights_of_eight_bits_that_are_not_finite_are_refused():
    model = nn.Sequential()
    model.fc = EightBits(1.0, 2.0, math.nan, 4.0)
    config_list = [{"op_names": ["fc"], "target_names": ["weight"], "sparse_ratio": 0.5}]
    session = tersely.attach(model, {"pruning": {"algorithm": "blind", "config_list": config_list}})
    with pytest.raises(CalibrationError, match=ONE_OF_FOUR.format("nan")):
        session.compress()
