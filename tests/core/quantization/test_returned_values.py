"""What a quantizer may return, checked when it returns it."""

import pytest
import torch
from torch import nn

import tersely
from tersely.contracts import LearnsScales, Penalizes, RoundsAtRandom, Simulates, SolvesWeights

ANSWERS = {}


class Choosing:
    def __init__(self, *, answer):
        self.answer = ANSWERS[answer]

    def choose(self, low, high, target):
        return self.answer(tersely.choose_qparams(low, high, target))


class Solving(SolvesWeights):
    def __init__(self, *, answer):
        self.answer = ANSWERS[answer]

    def solve(self, target):
        low, high = torch.aminmax(target.tensor.detach())
        qparams = tersely.choose_qparams(low.reshape(1, 1), high.reshape(1, 1), target)
        return self.answer(target.tensor.detach().clone(), qparams)


class Simulating(Simulates):
    def __init__(self, *, answer):
        self.answer = ANSWERS[answer]

    def simulate(self, value, qparams, target):
        return self.answer("simulate", tersely.fake_quantize(value, qparams), qparams)

    def integers(self, value, qparams, target):
        integers = torch.round(value / qparams.scale) + qparams.zero_point
        integers = integers.clamp(qparams.quant_min, qparams.quant_max).to(torch.uint8)
        return self.answer("integers", integers, qparams)


class Learning(LearnsScales, Penalizes):
    def __init__(self, *, answer):
        self.answer = ANSWERS[answer]

    def start(self, qparams, target):
        return {"scale": qparams.scale.clone()}

    def meaning(self, qparams, learned):
        return self.answer("meaning", qparams.evolve(scale=learned["scale"].detach()))

    def learned_values(self, value, qparams, learned, target):
        return self.answer("learned_values", value * learned["scale"] / qparams.scale)

    def penalty(self, learned, steps):
        return sum(one["scale"].square().sum() for one in learned)


class Random(RoundsAtRandom):
    def __init__(self, *, answer):
        self.answer = ANSWERS[answer]

    def rounded(self, value, qparams, target, generator):
        return self.answer(tersely.fake_quantize(value, qparams))


class Face:
    @tersely.hookimpl
    def tersely_quantizers(self):
        options = {
            "type": "object",
            "properties": {"answer": {"type": "string"}},
            "additionalProperties": False,
        }
        return [
            tersely.QuantizerInfo(
                name=cls.lower(), implementation=f"{__name__}:{cls}", options=options
            )
            for cls in ("Choosing", "Solving", "Simulating", "Learning", "Random")
        ]


@pytest.fixture(autouse=True)
def _registered():
    tersely.registry().register(Face(), name="answers")
    yield
    tersely.registry().unregister("answers")
    ANSWERS.clear()


def quantize(algorithm, answer, dtype="uint4"):
    ANSWERS["it"] = answer
    torch.manual_seed(0)
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": dtype}
    entry["quant_scheme"] = "affine"
    model = nn.Sequential(nn.Linear(8, 4, bias=False))
    return tersely.quantize(model, [entry], algorithm=algorithm, options={"answer": "it"})


CHOSEN = {
    "a tuple": (
        lambda qparams: (qparams.scale, qparams.zero_point),
        "choosing returned a tuple for 0.weight; expected QParams",
    ),
    "scales of another shape": (
        lambda qparams: qparams.evolve(scale=torch.ones(3)),
        "choosing returned scales of shape [3] for 0.weight; expected [1, 1]",
    ),
    "a scale of zero": (
        lambda qparams: qparams.evolve(scale=qparams.scale * 0),
        "choosing returned a scale that is not positive for 0.weight; expected finite positive scales",
    ),
    "another dtype": (
        lambda qparams: qparams.evolve(dtype="int8", quant_min=-127, quant_max=127),
        "choosing returned the grid int8 affine from -127 to 127 for 0.weight; expected uint4 affine "
        "from 0 to 15",
    ),
    "a zero point between the integers": (
        lambda qparams: qparams.evolve(zero_point=qparams.zero_point + 0.5),
        "choosing returned the zero point {} for 0.weight; expected an integer from 0 to 15",
    ),
    "a zero point outside of the range": (
        lambda qparams: qparams.evolve(zero_point=qparams.zero_point + 16),
        "choosing returned the zero point {} for 0.weight; expected an integer from 0 to 15",
    ),
}


@pytest.mark.parametrize(("answer", "message"), CHOSEN.values(), ids=list(CHOSEN))
def test_a_choice_that_was_not_asked_for_is_a_fault_of_the_plugin(answer, message):
    seen = []

    def noted(qparams):
        chosen = answer(qparams)
        seen.append(getattr(chosen, "zero_point", None))
        return chosen

    with pytest.raises(tersely.PluginError) as caught:
        quantize("choosing", noted)

    zero_point = "" if seen[0] is None else f"{float(seen[0].reshape(-1)[0]):.6g}"
    assert (str(caught.value), caught.value.plugin) == (message.format(zero_point), "choosing")


SOLVED = {
    "qparams alone": (
        lambda tensor, qparams: qparams,
        "solving returned a QParams for 0.weight; expected a tersely.QuantizedWeight or None",
    ),
    "other values": (
        lambda tensor, qparams: tersely.QuantizedWeight(tensor[:2], qparams),
        "solving returned values of shape [2, 8] for 0.weight; expected [4, 8]",
    ),
    "integers": (
        lambda tensor, qparams: tersely.QuantizedWeight(tensor.int(), qparams),
        "solving returned values of dtype torch.int32 for 0.weight; expected floats",
    ),
    "a float zero point": (
        lambda tensor, qparams: tersely.QuantizedWeight(
            tensor, qparams.evolve(zero_point=torch.tensor([[7.25]]))
        ),
        "solving returned the zero point 7.25 in solve() for 0.weight; expected an integer from 0 "
        "to 15",
    ),
}


@pytest.mark.parametrize(("answer", "message"), SOLVED.values(), ids=list(SOLVED))
def test_a_solved_weight_that_was_not_asked_for_is_a_fault_of_the_plugin(answer, message):
    with pytest.raises(tersely.PluginError) as caught:
        quantize("solving", answer)

    assert str(caught.value) == message


def test_a_simulation_of_another_dtype_is_a_fault_of_the_plugin():
    def double(step, values, qparams):
        return values.double()

    with pytest.raises(tersely.PluginError) as caught:
        quantize("simulating", double)

    assert str(caught.value) == (
        "simulating returned torch.float64 of shape [4, 8] in simulate() for 0.weight; expected "
        "torch.float32 of shape [4, 8]"
    )


INTEGERS = {
    "floats": (
        lambda integers, qparams: (integers + 0.5, qparams),
        "simulating returned torch.float32 in integers() for 0.weight; expected a tensor of an "
        "integer dtype",
    ),
    "integers outside of the range": (
        lambda integers, qparams: (torch.full_like(integers, 99), qparams),
        "simulating returned integers from 99 to 99 for 0.weight; expected 0 to 15, as it declares",
    ),
    "integers that stand for other values": (
        lambda integers, qparams: (integers, qparams.evolve(scale=qparams.scale * 2)),
        "simulating returned integers that differ from what it simulates by up to 0.351 for "
        "0.weight; expected the same values",
    ),
}


@pytest.mark.parametrize(("answer", "message"), INTEGERS.values(), ids=list(INTEGERS))
def test_integers_that_do_not_stand_for_the_weight_are_a_fault_of_the_plugin(answer, message):
    def by_step(step, values, qparams):
        return values if step == "simulate" else answer(values, qparams)

    session = quantize("simulating", by_step)

    with pytest.raises(tersely.PluginError) as caught:
        session.integer_weights()

    assert str(caught.value) == message


def test_integers_that_stand_for_what_is_simulated_are_handed_out():
    session = quantize(
        "simulating",
        lambda step, values, qparams: values if step == "simulate" else (values, qparams),
    )

    weight = session.integer_weights()["0"]["weight"]
    assert torch.equal(weight.dequantize(), session.model[0].weight)


LEARNED = {
    "a scale that is not positive": (
        "meaning",
        lambda found: found.evolve(scale=found.scale * 0),
        "learning returned a scale in meaning() that is not positive for 0.weight; expected finite "
        "positive scales",
    ),
    "no parameters": (
        "meaning",
        lambda found: found.scale,
        "learning returned a Tensor in meaning() for 0.weight; expected QParams",
    ),
    "values of another dtype": (
        "learned_values",
        lambda found: found.double(),
        "learning returned torch.float64 of shape [4, 8] in learned_values() for 0.weight; expected "
        "torch.float32 of shape [4, 8]",
    ),
}


@pytest.mark.parametrize(("step", "answer", "message"), LEARNED.values(), ids=list(LEARNED))
def test_what_is_learned_has_to_mean_something_from_the_start(step, answer, message):
    def by_step(asked, found):
        return answer(found) if asked == step else found

    with pytest.raises(tersely.PluginError) as caught:
        quantize("learning", by_step)

    assert str(caught.value) == message


def test_what_is_learned_has_to_mean_something_whenever_it_is_read():
    session = quantize("learning", lambda step, found: found)
    (scale,) = session.parameters()
    with torch.no_grad():
        scale.neg_()

    with pytest.raises(tersely.PluginError, match=r"a scale in meaning\(\) that is not positive"):
        session.qparams()


def test_a_penalty_of_what_is_learned_is_part_of_the_loss():
    session = quantize("learning", lambda step, found: found)
    (scale,) = session.parameters()

    session.loss().backward()

    assert torch.equal(scale.grad, 2 * scale.detach())


def test_values_rounded_at_random_have_the_dtype_of_the_value():
    session = quantize("random", lambda found: found.double())

    with pytest.raises(tersely.PluginError) as caught:
        session.model(torch.ones(1, 8))

    assert str(caught.value) == (
        "random returned torch.float64 of shape [4, 8] in rounded() for 0.weight; expected "
        "torch.float32 of shape [4, 8]"
    )
    with torch.no_grad():
        assert session.model[0].weight.dtype == torch.float32
