"""Pipelines in time with the algorithms that ship: what begins later does what it always does."""

import pytest
import torch
from torch import nn

import tersely

WEIGHTS = {"op_types": ["Linear"], "target_names": ["weight"]}
HALF = [{**WEIGHTS, "sparse_ratio": 0.5}]
EVERYTHING = [{"op_types": ["Linear"], "target_names": ["_input_", "weight"]}]
LINE = {"name": "linear", "every": 1}
DISTIL = {"config_list": [{"op_names": ["2"], "apply_method": "kl"}]}


def network(width=16):
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4))


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(32, 8, generator=generator)
    return inputs, inputs[:, :4].argmax(1)


def prune(algorithm, **more):
    return {"pruning": {"algorithm": algorithm, "config_list": HALF, **more}}


def quantize(algorithm, config_list=None, **options):
    config_list = config_list or EVERYTHING
    return {
        "quantization": {"algorithm": algorithm, "config_list": config_list, "options": options}
    }


def wait(until):
    """A period in which something else is done."""
    return {"distillation": DISTIL, "until": until}


def attach(model, *periods, **beside):
    recipe = {"stages": list(periods), **beside}
    session = tersely.attach(model, recipe, teacher=network(32))
    session.calibrate([batch(1000)[0]])
    session.compress()
    return session


def train(model, session, steps, *, first=0):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(first, first + steps):
        inputs, labels = batch(step)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        session.teacher_forward(inputs)
        session.total_loss(loss).backward()
        optimizer.step()
        session.step()


def zeros(session):
    return {name: round(share["weight"], 2) for name, share in session.sparsity().items()}


@pytest.mark.filterwarnings("ignore:a plain module cannot")
def test_pruned_along_a_schedule_then_quantized_and_taught_throughout():
    model = network()
    schedule = {"name": "agp", "every": 2, "times": 5}
    session = attach(
        model,
        {**prune("l1_norm", schedule=schedule), "until": 10},
        quantize("qat"),
        distillation=DISTIL,
    )
    train(model, session, 10)
    assert zeros(session) == {"0": 0.5, "2": 0.5}
    train(model, session, 10, first=10)
    with pytest.raises(tersely.SessionError, match="the student was not seen"):
        session.loss()  # it still distils
    model = session.finalize()
    for name, targets in session.qparams().items():
        weight = model.get_submodule(name).weight.detach()
        steps = weight / targets["weight"].scale
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
        assert float((weight == 0).float().mean()) >= 0.5


@pytest.mark.parametrize("algorithm", ["wanda", "sparsegpt"])
def test_one_shot_pruning_in_a_later_period_sees_the_trained_model(algorithm):
    model, twin = network(), network()
    session = attach(model, wait(3), prune(algorithm))
    assert session.sparsity() == {}
    train(model, session, 3)

    other = tersely.attach(twin, {"distillation": DISTIL}, teacher=network(32))
    train(twin, other, 3)
    other.detach()
    expected = tersely.prune(twin, HALF, algorithm=algorithm, data=[batch(1000)[0]])
    for name, masks in expected.masks().items():
        assert torch.equal(session.masks()[name]["weight"], masks["weight"]), name
    assert torch.equal(model[0].weight, twin[0].weight)


@pytest.mark.parametrize("algorithm", ["gptq", "awq", "smoothquant", "adaround", "ptq"])
def test_one_shot_quantization_in_a_later_period_sees_the_trained_model(algorithm):
    model, twin = network(), network()
    session = attach(model, wait(3), quantize(algorithm))
    train(model, session, 3)

    other = tersely.attach(twin, {"distillation": DISTIL}, teacher=network(32))
    train(twin, other, 3)
    other.detach()
    expected = tersely.quantize(twin, EVERYTHING, algorithm=algorithm, data=[batch(1000)[0]])
    for name, targets in expected.qparams().items():
        for target, qparams in targets.items():
            torch.testing.assert_close(session.qparams()[name][target].scale, qparams.scale)
    assert torch.equal(model[0].weight, twin[0].weight)


def test_gradients_are_observed_from_the_beginning_of_the_period():
    model, twin = network(), network()
    schedule = {"name": "linear", "every": 2}
    session = attach(model, wait(3), prune("taylor", schedule=schedule))
    train(model, session, 4)
    assert zeros(session) == {"0": 0, "2": 0}
    train(model, session, 1, first=4)
    assert zeros(session) == {"0": 0.5, "2": 0.5}

    # The same steps with a session of its own from step 3 on.
    other = tersely.attach(twin, {"distillation": DISTIL}, teacher=network(32))
    train(twin, other, 3)
    other.detach()
    alone = tersely.attach(twin, prune("taylor", schedule=schedule), teacher=network(32))
    alone.compress()
    train(twin, alone, 2, first=3)
    for name, masks in alone.masks().items():
        assert torch.equal(session.masks()[name]["weight"], masks["weight"]), name


def test_an_algorithm_that_ranks_by_training_needs_a_schedule_in_a_later_period():
    with pytest.raises(tersely.PlanError) as caught:
        attach(network(), wait(3), prune("slim"))
    assert str(caught.value) == (
        "stages[1].pruning: slim ranks by what training shows from step 3 on, where its period "
        "begins, so it cannot mask anything there; write a schedule, such as {name: linear, "
        "every: 100} for all at once 100 steps later"
    )


def test_an_algorithm_that_ranks_by_training_needs_a_schedule_where_its_period_ends():
    with pytest.raises(tersely.PlanError, match=r"stages\[0\].pruning: taylor ranks by what"):
        attach(network(), {**prune("taylor"), "until": 3}, quantize("qat"))


def test_what_is_learned_can_be_handed_over_while_what_learns_nothing_waits():
    recipe = {
        "stages": [
            {**quantize("lsq"), "until": 2},
            {"pruning": {"algorithm": "taylor", "config_list": HALF, "schedule": LINE}},
        ]
    }
    session = tersely.attach(network(), recipe)
    session.calibrate([batch(1000)[0]])
    session.compress()
    assert len(list(session.parameters())) == 4


@pytest.mark.parametrize("algorithm", ["taylor", "movement"])
def test_a_step_that_fails_when_a_stage_begins_can_be_made_again(algorithm, tmp_path):
    options = {"warmup_steps": 1, "cooldown_begin_step": 3} if algorithm == "movement" else {}
    more = {"schedule": LINE} if algorithm == "taylor" else {}
    periods = [
        {**quantize("qat", [{**EVERYTHING[0], "op_names": ["0"]}]), "until": 1},
        {**prune(algorithm, options=options, **more), "until": 4},
        quantize("ptq", [{**EVERYTHING[0], "op_names": ["2"]}]),
    ]
    whole, hurt = network(), network()
    expected = attach(whole, *periods)
    session = attach(hurt, *periods)
    bad = batch(1000)[0].clone()
    bad[0, 0] = float("nan")
    session.calibrate([bad])
    train(whole, expected, 3)
    train(hurt, session, 3)
    before = session.masks()
    with pytest.raises(tersely.CalibrationError):
        train(hurt, session, 1, first=3)
    assert session.steps == 3
    for name, masks in before.items():
        assert torch.equal(session.masks()[name]["weight"], masks["weight"])
    session.save(tmp_path)
    tersely.load_session(network(), tmp_path, teacher=network(32))
    session.calibrate([batch(1000)[0]])
    session.step()
    assert zeros(session) == {"0": 0.5, "2": 0.5}
    assert session.qparams()["2"]["_input_"].scale > 0


def test_what_a_stage_had_put_in_before_it_failed_to_begin_is_taken_out(tmp_path):
    options = {"warmup_steps": 1, "cooldown_begin_step": 4}
    both = [
        {
            **prune("movement", options=options)["pruning"],
            "config_list": [{**HALF[0], "op_names": ["0"]}],
        },
        {"algorithm": "wanda", "config_list": [{**HALF[0], "op_names": ["2"]}]},
    ]
    model = network()
    session = attach(model, wait(1), {"pruning": both})
    bad = batch(1000)[0].clone()
    bad[0, 0] = float("nan")
    session.calibrate([bad])
    with pytest.raises(tersely.CalibrationError):
        train(model, session, 1)
    assert not [name for name in model.state_dict() if "score" in name]
    session.save(tmp_path)
    tersely.load_session(network(), tmp_path, teacher=network(32))
    session.calibrate([batch(1000)[0]])
    session.step()
    assert zeros(session) == {"0": 0, "2": 0.5}
    assert [name for name in model.state_dict() if "score" in name]


def test_movement_has_to_reach_its_sparsity_within_its_period():
    options = {"warmup_steps": 2, "cooldown_begin_step": 10}
    movement = prune("movement", options=options)
    with pytest.raises(tersely.PlanError, match="of its sparsity when its period ends, 8 steps"):
        attach(network(), {**movement, "until": 8}, quantize("qat"))
    session = attach(network(), {**movement, "until": 10}, quantize("qat"))
    assert session.waiting == ("stages[1].quantization",)


def test_movement_stops_with_its_period():
    model = network()
    options = {"warmup_steps": 1, "cooldown_begin_step": 4}
    session = attach(
        model,
        wait(2),
        {**prune("movement", options=options), "until": 6},
        quantize("qat"),
    )
    train(model, session, 3)
    assert zeros(session) == {"0": 0, "2": 0}
    train(model, session, 3, first=3)
    assert zeros(session) == {"0": 0.5, "2": 0.5}
    masks = session.masks()["0"]["weight"]
    train(model, session, 6, first=6)
    assert torch.equal(session.masks()["0"]["weight"], masks)
    assert float(session.loss()) == 0


def test_a_session_whose_stages_all_come_later_steps_without_compress():
    model = network()
    recipe = {"stages": [wait(1), prune("l1_norm")]}
    session = tersely.attach(model, recipe, teacher=network(32))
    train(model, session, 1)
    assert zeros(session) == {"0": 0.5, "2": 0.5}


def test_learned_scales_of_a_later_period_move():
    model = network()
    session = attach(model, {**prune("l1_norm"), "until": 2}, quantize("lsq"))
    train(model, session, 2)
    before = session.qparams()["0"]["weight"].scale
    train(model, session, 3, first=2)
    assert not torch.equal(session.qparams()["0"]["weight"].scale, before)


def test_the_teacher_is_needed_in_the_periods_that_distil():
    model = network()
    session = attach(model, {**prune("l1_norm"), "until": 1}, wait(2), quantize("qat"))
    needed = []
    for step in range(4):
        needed.append(session.needs_teacher)
        train(model, session, 1, first=step)
    assert needed == [False, True, False, False]


def test_a_projection_of_a_later_period_is_not_handed_over_before():
    taught = {"config_list": [{"op_names": ["0"], "projection": "linear"}]}
    session = attach(network(8), {**prune("l1_norm"), "until": 2}, {"distillation": taught})
    with pytest.raises(tersely.SessionError, match=r"stages\[1\].distillation learns is made"):
        session.parameters()


@pytest.mark.parametrize("at", [1, 4, 5, 9])
def test_a_pipeline_goes_on_bit_for_bit(at, tmp_path):
    schedule = {"name": "agp", "every": 1, "times": 4}
    periods = [
        {**prune("taylor", schedule=schedule), "until": 4},
        {**quantize("lsq"), "until": 8},
        {"distillation": DISTIL},
    ]
    part = network()
    session = attach(part, *periods)
    for step in range(at):  # a new optimizer for each step, so that it has no state
        train(part, session, 1, first=step)
    session.save(tmp_path)
    again = network()
    state = part.state_dict()
    again.load_state_dict({name: state[name].clone() for name in again.state_dict()})
    session = tersely.load_session(again, tmp_path, teacher=network(32))
    session.calibrate([batch(1000)[0]])
    for step in range(at, 12):
        train(again, session, 1, first=step)

    whole = network()
    session = attach(whole, *periods)
    for step in range(12):
        train(whole, session, 1, first=step)
    for left, right in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(left, right)
