"""Tables of levels where ranges follow training, in averages, checkpoints and beside biases."""

import pytest
import torch
from messages.blocks import levels_from_0
from messages.plugins import NO_LEVELS_DECLARED
from safetensors.torch import load_file
from torch import nn

import tersely
from tersely.contracts import FollowsTraining, SolvesWeights, UsesLevels
from tersely.quantization.saved_scales import check_scales

LEVELS = torch.tensor([-1.0, -0.25, 0.5])
BATCH = torch.tensor([[1.0, 2.0], [-3.0, 0.5]])


class Follows(UsesLevels, FollowsTraining):
    """Three levels of the largest magnitude; of inputs none."""

    decay, start_step, freeze_step = 0.5, 0, None
    levels = LEVELS

    def choose(self, low, high, target):
        qparams = tersely.choose_qparams(low, high, target)
        scale = torch.maximum(-low, high).clamp_min(1e-9)
        if target.plan.kind == "input":
            return qparams
        return qparams.evolve(scale=scale, levels=self.levels)


class Undeclared(FollowsTraining):
    """Three levels that it does not declare."""

    decay, start_step, freeze_step, levels = 0.5, 0, None, LEVELS
    choose = Follows.choose


class Solved(UsesLevels, SolvesWeights):
    """Gives its table beside the parameters, and perhaps another one in them."""

    def __init__(self, *, other=False):
        self.other = other

    def solve(self, target):
        magnitude = target.tensor.abs().amax()
        qparams = tersely.choose_qparams(-magnitude, magnitude, target).evolve(scale=magnitude)
        if self.other:
            qparams = qparams.evolve(levels=LEVELS * 2)
        values = tersely.fake_quantize(target.tensor, qparams.evolve(levels=LEVELS))
        return tersely.QuantizedWeight(values, qparams, levels=LEVELS)


@pytest.fixture(autouse=True)
def _registered(provide_quantizers):
    with provide_quantizers(follows=Follows, undeclared=Undeclared, solved=Solved):
        yield


def attach(algorithm="follows", *, names=("weight",), dtype="uint3", settings=None, **options):
    model = nn.Sequential(nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[4.0, -1.0], [0.5, -4.0]]))
        model[0].bias.zero_()
    entry = {"op_types": ["Linear"], "target_names": list(names), "quant_dtype": dtype}
    entry["target_settings"] = settings or {}
    stage = {"algorithm": algorithm, "config_list": [entry], "options": options}
    return tersely.attach(model, {"quantization": stage})


def weights(session):
    return session.model[0].weight.detach()


# Over 4: 1, -0.25, 0.125, -1; the middles are -0.625 and 0.125, of which the lower one counts.
VALUES = torch.tensor([[2.0, -1.0], [-1.0, -4.0]])


def test_an_average_from_before_the_first_step_takes_a_table_shorter_than_its_type():
    session = attach()
    average = torch.optim.swa_utils.AveragedModel(session.model, use_buffers=True)

    session.model(BATCH)
    session.step()
    average.update_parameters(session.model)
    average.update_parameters(session.model)

    assert torch.equal(average.module[0].weight, VALUES)
    assert torch.equal(session.qparams()["0"]["weight"].levels, LEVELS)


def test_a_model_without_scales_in_the_average_changes_nothing_of_the_table():
    session = attach()
    averaging = torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
    average = torch.optim.swa_utils.AveragedModel(
        session.model, multi_avg_fn=averaging, use_buffers=True
    )
    average.update_parameters(session.model)

    session.model(BATCH)
    session.step()
    average.update_parameters(session.model)

    torch.testing.assert_close(average.module[0].weight, VALUES)


def test_a_target_without_a_table_is_quantized_by_whole_steps():
    session = attach(names=["_input_"], dtype="uint8")

    session.model(torch.tensor([[255.0, 0.4]]))

    assert session.qparams()["0"]["_input_"].levels is None
    expected = torch.tensor([[255.0, 0.0]]) @ weights(session).T
    assert torch.equal(session.model(torch.tensor([[255.0, 0.4]])), expected)


def test_a_table_that_its_type_cannot_count_is_refused_in_the_first_forward():
    session = attach(dtype="uint1")

    with pytest.raises(tersely.PluginError) as caught:
        session.model(BATCH)

    assert str(caught.value) == (
        "follows returned levels for 0.weight that cannot be used: "
        f"{levels_from_0(3, 'uint2')} or wider"
    )


def test_a_table_that_is_not_declared_is_refused_in_the_first_forward():
    session = attach("undeclared")

    with pytest.raises(tersely.PluginError, match=f"cannot be used: {NO_LEVELS_DECLARED}"):
        session.model(BATCH)


def test_a_checkpoint_without_a_range_brings_that_of_its_table():
    session = attach()
    session.model(BATCH)
    saved = session.model.state_dict()
    other = attach()

    other.model.load_state_dict(
        {name: one for name, one in saved.items() if not name.endswith(("_low", "_high"))}
    )

    buffers = dict(other.model[0].named_buffers())
    found = [buffers[f"_tersely_weight_{end}"].item() for end in ("low", "high")]
    assert found == [-4.0, 2.0]


def test_a_saved_session_has_the_table_alone(tmp_path):
    session = attach()
    session.model(BATCH)
    session.step()
    session.save(tmp_path)

    saved = load_file(next(tmp_path.rglob("*.safetensors")))

    assert torch.equal(saved["quantization.buffer:levels:0.weight"], LEVELS)
    loaded = tersely.load_session(attach().detach(), tmp_path)
    assert torch.equal(weights(loaded), VALUES)


@pytest.mark.parametrize("levels", [[], [0.5], [0.5] * 8, [1.0, 0.0, 0.0], [0.0, torch.nan]])
def test_a_table_that_is_none_is_refused_when_a_checkpoint_brings_it(levels):
    session, other = attach(), attach()
    session.model(BATCH)
    state = {**session.model.state_dict(), "0._tersely_weight_levels": torch.tensor(levels)}

    with pytest.raises(tersely.SessionFileError, match=r"^0\.weight: its table of levels is \["):
        other.model.load_state_dict(state)


def test_a_saved_table_longer_than_its_type_is_refused():
    session = attach()
    (run,) = session._engines.quantization.runs
    (bound,) = run.parameters
    parts = {"scale": torch.tensor(1.0), "levels": torch.arange(9.0)}

    with pytest.raises(tersely.SessionFileError) as caught:
        check_scales(bound, run.quantize_step(bound).cut, parts)

    assert str(caught.value) == (
        "the saved levels of 0.weight is float32 of shape [9]; expected at most 8 of them"
    )


@pytest.mark.parametrize(("counted", "whole"), [("weight", "_input_"), ("_input_", "weight")])
def test_an_int32_bias_beside_a_table_is_an_error_of_the_plan(counted, whole):
    settings = {"bias": {"quant_dtype": "int32"}, whole: {"quant_dtype": "int8"}}

    with pytest.raises(tersely.PlanError) as caught:
        attach(names=("_input_", "weight", "bias"), settings=settings)

    assert str(caught.value) == (
        "quantization.config_list[0]: 0.bias: quant_dtype 'int32' is added to products of "
        f"integers, and those of {counted} are indices into a table of levels; leave the bias out "
        "of target_names, so that it stays a float, or take an algorithm without such a table"
    )


def test_a_solved_weight_may_carry_its_levels_beside_its_parameters():
    session = attach("solved")

    session.compress()

    assert torch.equal(session.qparams()["0"]["weight"].levels, LEVELS)
    assert torch.equal(weights(session), VALUES)


def test_a_solved_weight_has_one_table():
    session = attach("solved", other=True)

    with pytest.raises(tersely.PluginError) as caught:
        session.compress()

    assert str(caught.value) == (
        "solved returned two tables of levels in solve() for 0.weight; expected one, in levels or "
        "in qparams"
    )
