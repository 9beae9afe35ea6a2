"""Stages that begin later (rule O4): nothing before their period, everything from it on."""

import copy
import pickle

import pytest
import torch
from messages.sessions import SESSION_LOADED
from torch import nn

import tersely

WEIGHTS = {"op_types": ["Linear"], "target_names": ["weight"]}
FIRST = {"algorithm": "toy", "config_list": [{**WEIGHTS, "sparse_ratio": 0.5}]}


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def batch(seed=0):
    return torch.randn(16, 4, generator=torch.Generator().manual_seed(seed))


def recipe(algorithm, config_list=None, *, until=3, **options):
    stage = {
        "algorithm": algorithm,
        "config_list": config_list or [WEIGHTS],
        "options": options,
    }
    return {"stages": [{"pruning": FIRST, "until": until}, {"quantization": stage}]}


def train(model, session, steps, *, first=0):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(first, first + steps):
        optimizer.zero_grad()
        session.total_loss(model(batch(step)).square().mean() / 100).backward()
        optimizer.step()
        session.step()


def values(model, inputs):
    model.eval()
    with torch.no_grad():
        found = model(inputs)
    model.train()
    return found


@pytest.mark.parametrize("algorithm", ["toy_range", "toy_follow", "toy_learn", "toy_signs"])
def test_before_its_period_nothing_is_rounded(algorithm):
    model = build()
    session = tersely.attach(model, recipe(algorithm))
    session.compress()
    masked = build()
    pruned = tersely.prune(masked, FIRST["config_list"], algorithm="toy")
    for steps in range(3):
        assert session.qparams() == {}
        assert torch.equal(values(model, batch()), values(masked, batch())), steps
        train(model, session, 1, first=steps)
        train(masked, pruned, 1, first=steps)
    assert sorted(session.qparams()) == ["0", "3"]
    assert not torch.equal(values(model, batch()), values(masked, batch()))


def test_scales_are_those_of_the_weights_at_the_beginning_of_the_period():
    model = build()
    session = tersely.attach(model, recipe("toy_range"))
    session.compress()
    train(model, session, 3)
    kept = model[0]._parameters["weight"].detach() * session.masks()["0"]["weight"]
    expected = kept.abs().max() / 127
    torch.testing.assert_close(session.qparams()["0"]["weight"].scale.view(()), expected)


def test_inputs_get_the_ranges_of_the_batches_that_calibration_kept():
    model = build()
    inputs = [{"op_types": ["Linear"], "target_names": ["_input_"]}]
    session = tersely.attach(model, recipe("toy_range", inputs))
    session.calibrate([batch(), batch(1)])
    session.compress()
    train(model, session, 3)
    largest = torch.cat([batch(), batch(1)]).abs().max()
    torch.testing.assert_close(session.qparams()["0"]["_input_"].scale.view(()), largest / 127)


def test_without_batches_for_later_neither_compress_nor_step_goes_on():
    inputs = [{"op_types": ["Linear"], "target_names": ["_input_"]}]
    session = tersely.attach(build(), recipe("toy_range", inputs))
    message = (
        r"found no calibration batches, and stages\[1\].quantization \(toy_range\) looks at some "
        r"when it begins, at step 3; call session.calibrate\(batches\) first"
    )
    with pytest.raises(tersely.SessionError, match=r"compress\(\) " + message):
        session.compress()
    assert session.masks() == {}
    session.calibrate([batch()])
    session.compress()
    session.step()


def test_ranges_that_follow_training_need_no_batches_and_count_from_their_beginning(
    monkeypatch,
):
    model = build()
    inputs = [{"op_types": ["Linear"], "target_names": ["_input_"]}]
    session = tersely.attach(model, recipe("toy_follow", inputs, start=2))
    session.compress()
    train(model, session, 4)
    # One step in the period: ranges are there, and nothing is rounded before its third step.
    assert "_input_" in session.qparams()["0"]
    dense = torch.nn.functional.linear(batch(), model[0].weight, model[0].bias)
    torch.testing.assert_close(values(model[0], batch()), dense, rtol=0, atol=0)
    train(model, session, 1)
    assert not torch.equal(values(model[0], batch()), dense)


def test_what_a_later_stage_learns_begins_with_its_period_and_is_moved():
    model = build()
    session = tersely.attach(model, recipe("toy_learn"))
    session.compress()
    with pytest.raises(tersely.SessionError, match=r"what stages\[1\].quantization learns is made"):
        session.parameters()
    train(model, session, 3)
    (run,) = (one for one in session._engines.quantization.runs if one.is_learning)
    before = run.all_learned().popitem()[1].detach().clone()
    train(model, session, 1)
    after = run.all_learned().popitem()[1]
    assert not torch.equal(before, after)
    assert len(list(session.parameters())) == 2


def test_a_batch_norm_is_folded_from_the_beginning_of_the_period():
    model, twin = build(), build()
    entry = {"op_names": ["0"], "target_names": ["weight"], "fuse_names": [["0", "1", "2"]]}
    session = tersely.attach(model, recipe("toy_range", [entry]))
    session.compress()
    pruned = tersely.prune(twin, FIRST["config_list"], algorithm="toy")
    train(model, session, 2)
    train(twin, pruned, 2)
    assert torch.equal(values(model, batch()), values(twin, batch()))
    assert torch.equal(model[1].running_mean, twin[1].running_mean)
    train(model, session, 1, first=2)
    train(twin, pruned, 1, first=2)
    folded = twin[0].weight.detach() * (
        twin[1].weight * torch.rsqrt(twin[1].running_var + twin[1].eps)
    ).detach().view(-1, 1)
    scale = session.qparams()["0"]["weight"].scale.view(())
    torch.testing.assert_close(scale, folded.abs().max() / 127)
    torch.testing.assert_close(values(model, batch()), values(twin, batch()), rtol=0.1, atol=0.02)
    model.eval()
    simulated = values(model, batch())
    finished = session.finalize()
    torch.testing.assert_close(values(finished, batch()), simulated)
    torch.testing.assert_close(finished[1].running_var + finished[1].eps, torch.ones(8))


def test_a_stage_that_fails_to_begin_leaves_everything_as_it_was(mend):
    model = build()
    entry = {**WEIGHTS, "fuse_names": [["0", "1"]]}
    session = tersely.attach(model, recipe("toy_fails", [entry], until=2, at="3.weight"))
    session.compress()
    train(model, session, 1)
    before = values(model, batch())
    with pytest.raises(tersely.PluginError, match="no idea"):
        session.step()
    assert session.steps == 1
    assert session.qparams() == {}
    assert torch.equal(values(model, batch()), before)
    mend()
    session.step()
    assert (session.steps, sorted(session.qparams())) == (2, ["0", "3"])


@pytest.mark.parametrize("at", [1, 2, 3, 4])
@pytest.mark.parametrize("algorithm", ["toy_range", "toy_follow", "toy_learn"])
def test_a_session_goes_on_bit_for_bit_before_and_after_a_period(algorithm, at, tmp_path):
    whole = build()
    session = tersely.attach(whole, recipe(algorithm))
    session.compress()
    train(whole, session, 6)

    part = build()
    session = tersely.attach(part, recipe(algorithm))
    session.compress()
    train(part, session, at)
    session.save(tmp_path)
    weights = {name: tensor.clone() for name, tensor in part.state_dict().items()}
    again = build()
    again.load_state_dict({name: weights[name] for name in again.state_dict()})
    session = tersely.load_session(again, tmp_path)
    train(again, session, 6 - at, first=at)

    assert torch.equal(values(again, batch()), values(whole, batch()))
    for left, right in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(left, right)


def test_a_loaded_session_asks_for_its_batches_at_its_first_step(tmp_path):
    inputs = [{"op_types": ["Linear"], "target_names": ["_input_"]}]
    model = build()
    session = tersely.attach(model, recipe("toy_range", inputs))
    session.calibrate([batch()])
    session.compress()
    train(model, session, 1)
    session.save(tmp_path)
    again = build()
    session = tersely.load_session(again, tmp_path)
    with pytest.raises(tersely.SessionError, match=f"also {SESSION_LOADED}"):
        session.step()
    session.calibrate([batch()])
    session.step()
    assert session.steps == 2


def test_copies_and_pickles_of_a_model_that_waits_compute_the_same():
    model = build()
    entry = {"op_names": ["0"], "target_names": ["weight"], "fuse_names": [["0", "1", "2"]]}
    session = tersely.attach(model, recipe("toy_range", [entry]))
    session.compress()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # our own
        assert torch.equal(values(twin, batch()), values(model, batch()))
    assert session.waiting == ("stages[1].quantization",)


def test_detaching_while_a_stage_waits_gives_the_dense_model_back():
    model, dense = build(), build()
    entry = {"op_names": ["0"], "target_names": ["weight"], "fuse_names": [["0", "1", "2"]]}
    session = tersely.attach(model, recipe("toy_range", [entry]))
    session.compress()
    session.detach()
    assert [type(one) for one in model.modules()] == [type(one) for one in dense.modules()]
    assert torch.equal(values(model, batch()), values(dense, batch()))


def test_the_report_says_what_is_still_to_come():
    session = tersely.attach(build(), recipe("toy_range", until=40))
    session.compress()
    remarks = [remark.text for remark in session.report().remarks]
    assert remarks == ["stages[1].quantization begins at step 40; this is step 0"]


def test_history_tells_when_a_stage_began():
    model = build()
    session = tersely.attach(model, recipe("toy_range"))
    session.compress()
    train(model, session, 4)
    assert [(one["step"], one["event"]) for one in session.history] == [
        (0, "compress"),
        (3, "begin"),
    ]


def test_ranges_freeze_at_the_step_at_which_another_stage_begins():
    model = build()
    first = {"algorithm": "toy_follow", "options": {"freeze": 3}}
    names = [{"op_names": [name], "target_names": ["_input_", "weight"]} for name in ("0", "3")]
    recipe = {
        "stages": [
            {"quantization": {**first, "config_list": names[:1]}, "until": 3},
            {"quantization": {"algorithm": "toy_range", "config_list": names[1:]}},
        ]
    }
    session = tersely.attach(model, recipe)
    session.calibrate([batch()])
    session.compress()
    train(model, session, 3)
    frozen = session.qparams()["0"]["_input_"].scale
    model(batch() * 100)
    assert torch.equal(session.qparams()["0"]["_input_"].scale, frozen)


def test_a_step_that_fails_when_a_stage_begins_leaves_masks_and_clock(mend):
    model = build()
    schedule = {"name": "toy_line", "every": 2, "times": 1}
    first = {**FIRST, "schedule": schedule}
    last = {"algorithm": "toy_fails", "config_list": [WEIGHTS], "options": {"at": "3.weight"}}
    session = tersely.attach(
        model, {"stages": [{"pruning": first, "until": 2}, {"quantization": last}]}
    )
    session.compress()
    train(model, session, 1)
    history = list(session.history)
    with pytest.raises(tersely.PluginError, match="no idea"):
        session.step()
    assert session.steps == 1
    assert session.sparsity()["0"]["weight"] == 0
    assert session.history == history
    mend()
    session.step()
    assert session.sparsity()["0"]["weight"] == 0.5
    assert sorted(session.qparams()) == ["0", "3"]


def test_ranges_that_began_with_batches_ask_for_them_after_loading(tmp_path):
    inputs = [{"op_types": ["Linear"], "target_names": ["_input_"]}]
    model = build()
    session = tersely.attach(model, recipe("toy_follow", inputs))
    session.calibrate([batch()])
    session.compress()
    train(model, session, 1)
    session.save(tmp_path)
    session = tersely.load_session(build(), tmp_path)
    with pytest.raises(tersely.SessionError, match=f"also {SESSION_LOADED}"):
        session.step()


def test_batches_are_kept_until_the_last_stage_has_begun():
    inputs = [{"op_types": ["Linear"], "target_names": ["_input_"]}]
    model = build()
    session = tersely.attach(model, recipe("toy_range", inputs))
    session.calibrate([batch()])
    session.compress()
    train(model, session, 2)
    assert session._context.batches is not None
    train(model, session, 1)
    assert session._context.batches is None


def test_a_session_does_not_go_back_behind_the_beginning_of_a_stage():
    model = build()
    session = tersely.attach(model, recipe("toy_range"))
    session.compress()
    train(model, session, 1)
    state = session.state()
    train(model, session, 2)
    with pytest.raises(tersely.SessionError, match="the state is that of step 1"):
        session.restore(*state)
    assert session.steps == 3
