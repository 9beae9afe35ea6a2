"""Float zero points and level tables in a session: only where they are declared."""

import pytest
import torch
from messages.blocks import levels_from_0
from messages.plugins import NO_LEVELS_DECLARED
from torch import nn

import tersely
from tersely.contracts import LearnsScales, SolvesWeights, UsesFloatZeroPoints, UsesLevels
from tersely.quantization.scale_buffers import range_of

LEVELS = torch.tensor([-1.0, -0.25, 0.0, 0.5])
WEIGHT = torch.tensor([[0.0, 1.0, 2.0, 4.0], [-3.0, -1.0, 0.5, 1.5]])


class Zeros(UsesFloatZeroPoints, SolvesWeights):
    """The smallest and largest value of the tensor become the smallest and largest integer."""

    def __init__(self, *, whole=False):
        self.float_zero_points = not whole

    def solve(self, target):
        low, high = target.tensor.aminmax()
        scale = (high - low) / (target.quant_max - target.quant_min)
        qparams = tersely.choose_qparams(low, high, target)
        qparams = qparams.evolve(scale=scale, zero_point=target.quant_min - low / scale)
        return tersely.QuantizedWeight(tersely.fake_quantize(target.tensor, qparams), qparams)


class Table(UsesLevels):
    """Four levels, times the largest magnitude."""

    def __init__(self, *, plain=False):
        self.level_tables = not plain

    def choose(self, low, high, target):
        qparams = tersely.choose_qparams(low, high, target)
        scale = torch.maximum(-low, high).reshape(qparams.scale.shape).clamp_min(1e-9)
        return qparams.evolve(scale=scale, levels=LEVELS)


class Moves(UsesFloatZeroPoints, LearnsScales):
    """Learns a zero point that lies anywhere."""

    def start(self, qparams, target):
        return {"zero_point": qparams.zero_point.float() + 0.5}

    def meaning(self, qparams, learned):
        return qparams.evolve(zero_point=learned["zero_point"].detach())

    def learned_values(self, value, qparams, learned, target):
        moved = qparams.evolve(zero_point=learned["zero_point"].detach())
        drawn = learned["zero_point"] - learned["zero_point"].detach()
        return tersely.fake_quantize(value, moved) - drawn * qparams.scale


@pytest.fixture(autouse=True)
def _registered(provide_quantizers):
    with provide_quantizers(zeros=Zeros, table=Table, moves=Moves):
        yield


def make():
    model = nn.Sequential(nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(WEIGHT)
    return model


def quantize(algorithm, *, dtype="uint2", **options):
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": dtype}
    return tersely.quantize(make(), [entry], algorithm=algorithm, options=options)


def integers(session):
    return session.integer_weights()["0"]["weight"]


# -3 to 4 in 3 steps: scale 7/3, zero point 9/7; x * 3/7 + 9/7 = 9/7, 12/7, 15/7, 3 and 0, 6/7,
# 1.5, 27/14, of which the half goes to the even 2.
WHOLE = [[1, 2, 2, 3], [0, 1, 2, 2]]


def test_a_float_zero_point_comes_with_its_integers():
    weight = integers(quantize("zeros"))

    assert weight.values.tolist() == WHOLE
    assert weight.qparams.has_float_zero_point
    assert float(weight.qparams.zero_point) == pytest.approx(9 / 7)


def test_forward_computes_with_what_the_integers_mean():
    session = quantize("zeros")

    expected = (torch.tensor(WHOLE) - 9 / 7) * (7 / 3)
    torch.testing.assert_close(session.model[0].weight.detach(), expected)
    assert torch.equal(integers(session).dequantize(), session.model[0].weight)


# Largest magnitude 4: 0, 0.25, 0.5, 1 and -0.75, -0.25, 0.125, 0.375; 0.25 and 0.125 lie in reach
# of 0 and 0.5 (middle 0.25, to the lower), -0.75 nearer to -1 (middle -0.625).
INDICES = [[2, 2, 3, 3], [0, 1, 2, 3]]


def test_integers_are_indices_into_the_table_that_comes_with_them():
    weight = integers(quantize("table"))

    assert weight.values.tolist() == INDICES
    assert torch.equal(weight.qparams.levels, LEVELS)
    assert weight.dequantize().tolist() == (LEVELS[torch.tensor(INDICES)] * 4).tolist()


@pytest.mark.parametrize("algorithm", ["zeros", "table", "moves"])
def test_a_saved_session_is_restored_bit_for_bit(algorithm, tmp_path):
    session = quantize(algorithm)
    session.save(tmp_path)

    restored = tersely.load_session(make(), tmp_path)

    one, other = session.qparams()["0"]["weight"], restored.qparams()["0"]["weight"]
    assert torch.equal(one.zero_point, other.zero_point)
    assert torch.equal(session.model[0].weight, restored.model[0].weight)
    assert torch.equal(integers(session).values, integers(restored).values)


@pytest.mark.parametrize("algorithm", ["zeros", "table", "moves"])
def test_finishing_keeps_the_values(algorithm):
    session = quantize(algorithm)
    expected = session.model[0].weight.detach().clone()

    finished = session.finalize()

    assert torch.equal(finished[0].weight, expected)
    assert list(finished.state_dict()) == ["0.weight"]


@pytest.mark.parametrize("algorithm", ["zeros", "table"])
def test_a_checkpoint_brings_the_values_to_another_model(algorithm):
    session = quantize(algorithm)
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "uint2"}
    stage = {"algorithm": algorithm, "config_list": [entry]}
    other = tersely.attach(make(), {"quantization": stage})

    other.model.load_state_dict(session.model.state_dict())

    assert torch.equal(other.model[0].weight, session.model[0].weight)


def test_an_average_of_models_averages_float_zero_points_and_keeps_levels():
    for algorithm in ("zeros", "table"):
        session = quantize(algorithm)
        average = torch.optim.swa_utils.AveragedModel(session.model, use_buffers=True)
        average.update_parameters(session.model)
        average.update_parameters(session.model)

        assert torch.equal(average.module[0].weight, session.model[0].weight)


@pytest.mark.parametrize("algorithm", ["zeros", "table"])
def test_the_same_parameters_may_be_set_by_hand(algorithm):
    session, other = quantize(algorithm), quantize(algorithm)
    chosen = session.qparams()["0"]["weight"]
    doubled = chosen.evolve(scale=chosen.scale * 2)

    other.set_qparams({"0": {"weight": doubled}})

    found = other.qparams()["0"]["weight"]
    assert torch.equal(found.scale, doubled.scale)
    assert torch.equal(found.zero_point, doubled.zero_point)


def test_the_range_of_a_table_is_that_of_its_levels():
    qparams = tersely.QParams(
        scale=torch.tensor(2.0),
        zero_point=torch.tensor(0, dtype=torch.int32),
        quant_min=0,
        quant_max=3,
        dtype="uint2",
        scheme="affine",
        levels=LEVELS,
    )

    assert [float(end) for end in range_of(qparams)] == [-2.0, 1.0]


def test_levels_set_by_hand_need_an_algorithm_that_has_them():
    session = quantize("zeros")
    chosen = session.qparams()["0"]["weight"]

    with pytest.raises(tersely.SessionError, match=r"do not fit: zeros has no table of levels"):
        session.set_qparams({"0": {"weight": chosen.evolve(levels=LEVELS)}})


def test_an_option_may_turn_float_zero_points_off():
    with pytest.raises(tersely.PluginError) as caught:
        quantize("zeros", whole=True)

    assert str(caught.value) == (
        "zeros returned the zero point 1.28571 in solve() for 0.weight; expected an integer from 0 "
        "to 3"
    )


def test_levels_that_are_not_declared_are_a_fault_of_the_plugin():
    with pytest.raises(tersely.PluginError) as caught:
        quantize("table", plain=True)

    assert str(caught.value) == (
        f"table returned levels for 0.weight; expected none, as {NO_LEVELS_DECLARED}"
    )


def test_a_type_with_too_few_values_for_the_levels_is_an_error_of_the_document():
    with pytest.raises(tersely.PlanError) as caught:
        quantize("table", dtype="uint1")

    assert str(caught.value) == (
        f"quantization.config_list[0]: 0.weight: table: {levels_from_0(4, 'uint2')} or wider"
    )


def test_a_zero_point_that_is_not_finite_is_a_fault_of_the_plugin(monkeypatch):
    monkeypatch.setattr(
        Zeros,
        "solve",
        lambda self, target: tersely.QuantizedWeight(
            target.tensor,
            tersely.choose_qparams(*target.tensor.aminmax(), target).evolve(
                zero_point=torch.tensor(float("nan"))
            ),
        ),
    )

    with pytest.raises(tersely.PluginError, match=r"a zero point in solve\(\) that is not finite"):
        quantize("zeros")


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("algorithm", ["zeros", "table"])
def test_compiled_models_compute_the_same(algorithm):
    session, batch = quantize(algorithm), torch.randn(3, 4)

    compiled = torch.compile(session.model, fullgraph=True, backend="eager")

    assert torch.equal(compiled(batch), session.model(batch))
