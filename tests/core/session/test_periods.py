"""Pruning that begins later (rule O4): inputs, followers, masks by hand, and the order of calls."""

import warnings

import pytest
import torch
from messages.sessions import END_SOONER, NOTHING_KEPT
from torch import nn

import tersely

pytestmark = pytest.mark.usefixtures("toy_pruners")

FIRST = {"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.5}
LAST = {"op_names": ["2"], "target_names": ["weight"], "sparse_ratio": 0.5}


def stage(*entries, algorithm="toy", **more):
    return {"pruning": {"algorithm": algorithm, "config_list": list(entries), **more}}


def recipe(*entries, until=2, **more):
    return {"stages": [{**stage(FIRST), "until": until}, stage(*entries, **more)]}


def shares(session):
    return {name: dict(targets) for name, targets in session.sparsity().items()}


def test_outputs_are_ranked_by_what_the_batches_show_when_the_period_begins(build, data):
    output = {"op_names": ["2"], "target_names": ["_output_"], "sparse_ratio": 0.5}
    model = build()
    session = tersely.attach(model, recipe(output))
    session.calibrate([data])
    session.compress()
    session.step()
    assert "2" not in session.masks()
    with torch.no_grad():
        model[2].weight.copy_(torch.stack([torch.full((8,), 5.0), torch.zeros(8)]))
        model[2].bias.copy_(torch.tensor([100.0, 0.0]))
    session.step()
    # Whatever the first weights gave, the first channel is the larger one now.
    assert session.masks()["2"]["_output_"].tolist() == [True, False]


def test_a_follower_gets_its_mask_with_what_it_follows(build):
    align = {"module_name": "2", "target_name": "weight", "dims": [0]}
    bias = {"op_names": ["2"], "target_settings": {"bias": {"align": align}}}
    weight = {**LAST, "target_names": ["weight"]}
    session = tersely.attach(
        build(), recipe(weight, {**bias, "target_names": ["bias"]}, algorithm="toy_rows")
    )
    session.compress()
    assert sorted(session.masks()) == ["0"]
    session.step()
    session.step()
    kept = session.masks()["2"]
    assert torch.equal(kept["bias"], kept["weight"].all(1))
    assert kept["bias"].sum() == 1


def test_masks_by_hand_may_come_before_the_period_and_are_decided_anew_in_it(build):
    session = tersely.attach(build(), recipe(LAST))
    session.compress()
    session.set_masks({"2": {"weight": torch.ones(2, 8, dtype=torch.bool)}})
    assert shares(session)["2"]["weight"] == 0
    session.step()
    session.step()
    assert shares(session)["2"]["weight"] == 0.5


@pytest.mark.filterwarnings(f"ignore:.*{NOTHING_KEPT}")
def test_frozen_masks_by_hand_stay_when_their_period_begins(build):
    mask = torch.zeros(2, 8, dtype=torch.bool)
    session = tersely.attach(build(), recipe(LAST))
    session.compress()
    session.set_masks({"2": {"weight": mask}}, freeze=True)
    session.step()
    session.step()
    assert shares(session)["2"]["weight"] == 1


def test_compressing_again_leaves_what_has_not_begun_alone(build):
    session = tersely.attach(build(), recipe(LAST))
    for _ in range(2):
        session.compress()
        assert sorted(session.masks()) == ["0"]
    session.step()
    session.step()
    session.compress()
    assert sorted(session.masks()) == ["0", "2"]


def test_steps_come_after_compress_as_ever(build):
    session = tersely.attach(build(), recipe(LAST))
    with pytest.raises(tersely.SessionError, match=r"call session.compress\(\) before"):
        session.step()


def test_a_model_is_not_finished_before_everything_has_begun(build):
    model = build()
    session = tersely.attach(model, recipe(LAST))
    session.compress()
    with pytest.raises(tersely.SessionError) as caught:
        session.finalize()
    assert str(caught.value) == (
        "finalize() comes at step 0, and stages[1].pruning begins at step 2; train on until "
        f"then, {END_SOONER}"
    )
    session.step()
    session.step()
    session.finalize()
    assert type(model[2]) is nn.Linear


def test_compress_does_not_warn_of_what_is_still_to_come(build):
    session = tersely.attach(build(), recipe(LAST))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session.compress()
    report = session.report()
    assert not report.warnings
    assert [remark.text for remark in report.remarks] == [
        "stages[1].pruning begins at step 2; this is step 0"
    ]


def test_one_target_in_two_periods_is_an_error(build):
    with pytest.raises(tersely.PlanError) as caught:
        tersely.plan(build(), recipe(FIRST))
    assert caught.value.problems == (
        "stages[1].pruning.config_list[0]: 0.weight: stages[0].pruning.config_list[0] has it for "
        "pruning in another period, but a target belongs to one stage from beginning to end; leave "
        "it out of one of them",
    )


def test_a_plan_with_periods_comes_back_from_json(build):
    plan = tersely.plan(build(), recipe(LAST))
    again = tersely.Plan.from_dict(plan.to_dict())
    assert [(stage.begin, stage.end) for stage in again.recipe.stages] == [(0, 2), (2, None)]


def test_the_table_of_a_plan_tells_when_each_stage_is_at_work(build):
    schedule = {"name": "toy_line", "every": 5, "times": 4}
    table = str(tersely.plan(build(), recipe(LAST, schedule=schedule)))
    assert table.splitlines()[-3:] == [
        "periods:",
        "  stages[0].pruning (toy): from the beginning to step 2",
        "  stages[1].pruning (toy): from step 2 to the end, fully sparse from step 22 on",
    ]


def test_the_table_of_a_plan_without_periods_does_not_speak_of_them(build):
    assert "periods" not in str(tersely.plan(build(), stage(FIRST)))


def test_masks_change_no_more_when_their_period_is_over(build):
    model = build()
    session = tersely.attach(model, recipe(LAST))
    session.compress()
    session.step()
    session.step()
    before = session.masks()["0"]["weight"]
    with torch.no_grad():
        model[0].weight.copy_(1 / model[0]._parameters["weight"])
    session.compress()
    assert torch.equal(session.masks()["0"]["weight"], before)


def test_an_output_on_a_schedule_is_saved_and_loaded_before_its_first_update(build, data, tmp_path):
    output = {"op_names": ["2"], "target_names": ["_output_"], "sparse_ratio": 0.5}
    schedule = {"name": "toy_line", "begin": 1, "every": 2, "times": 1}
    session = tersely.attach(build(), recipe(output, schedule=schedule))
    session.calibrate([data])
    session.compress()
    for step in range(6):
        session.save(tmp_path / str(step))
        again = tersely.load_session(build(), tmp_path / str(step))
        assert again.sparsity() == session.sparsity()
        session.step()
    assert session.sparsity()["2"]["_output_"] == 0.5
