"""Stages that end with shrink, in sessions: who is told when, and what happens by itself."""

from functools import partial

import pytest
import torch
from torch import nn

import tersely

INPUTS = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
PRUNING = {
    "algorithm": "l1_norm",
    "config_list": [{"op_names": ["0"], "sparse_ratio": 0.5}],
}
GROWING = {**PRUNING, "schedule": {"name": "agp", "times": 2}}
QUANTIZATION = {
    "algorithm": "qat",
    "config_list": [{"op_types": ["Linear"], "target_names": ["weight"]}],
}
ONE_AFTER_ANOTHER = {
    "stages": [
        {"until": 3, "shrink": True, "pruning": GROWING},
        {"quantization": QUANTIZATION},
    ]
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))


def attached(recipe, **options):
    model = network()
    session = tersely.attach(model, recipe, **options)
    session.compress()
    return model, session, torch.optim.Adam(model.parameters(), lr=1e-2)


def train(model, session, optimizer, steps, *, is_given=True):
    for _ in range(steps):
        optimizer.zero_grad()
        model(INPUTS).square().mean().backward()
        optimizer.step()
        session.step(optimizer=optimizer if is_given else None)


def test_the_step_that_ends_a_period_shrinks():
    model, session, optimizer = attached(ONE_AFTER_ANOTHER, example_inputs=INPUTS)
    train(model, session, optimizer, 2)
    assert (session.to_shrink, session.due_to_shrink) == (("stages[0].pruning",), ())
    assert model[0].out_features == 20
    train(model, session, optimizer, 1)
    assert model[0].out_features == 10
    assert session.to_shrink == ()
    train(model, session, optimizer, 2)
    assert optimizer.state[dict(model.named_parameters())["0.weight"]]["exp_avg"].shape == (10, 6)


def test_a_stage_without_end_shrinks_when_its_sparsity_is_reached():
    recipe = {"pruning": {**GROWING, "shrink": True}}
    model, session, optimizer = attached(recipe, example_inputs=INPUTS)
    train(model, session, optimizer, 1)
    assert model[0].out_features == 20
    train(model, session, optimizer, 1)
    assert model[0].out_features == 10


def test_without_a_schedule_that_is_so_after_compress():
    model, session, optimizer = attached(
        {"pruning": {**PRUNING, "shrink": True}}, example_inputs=INPUTS
    )
    assert session.due_to_shrink == ("pruning",)
    session.shrink()
    assert model[0].out_features == 10
    train(model, session, optimizer, 1, is_given=False)


def test_a_step_without_optimizer_leaves_shrinking_to_the_caller():
    model, session, optimizer = attached(ONE_AFTER_ANOTHER, example_inputs=INPUTS)
    train(model, session, optimizer, 3, is_given=False)
    assert session.due_to_shrink == ("stages[0].pruning",)
    with pytest.raises(tersely.SessionError) as caught:
        session.step()
    assert str(caught.value) == (
        "step() comes at step 3, and stages[0].pruning ends with shrink, at step 3, which was not "
        "done; call session.shrink(example_inputs, optimizer=optimizer), or step with "
        "session.step(optimizer=optimizer) in a session that was attached with example_inputs=..."
    )
    assert session.steps == 3
    session.shrink(optimizer=optimizer)
    train(model, session, optimizer, 1, is_given=False)


def test_a_session_without_example_inputs_says_so():
    _, session, _ = attached({"pruning": {**PRUNING, "shrink": True}})
    with pytest.raises(tersely.SessionError, match="has no example_inputs"):
        session.shrink()


def test_finalize_leaves_nothing_that_a_stage_would_have_removed():
    _, session, _ = attached(ONE_AFTER_ANOTHER | {"stages": ONE_AFTER_ANOTHER["stages"][:1]})
    with pytest.raises(tersely.SessionError, match=r"finalize\(\) comes at step 0, and stages\[0"):
        session.finalize()


def test_the_counts_that_a_stage_asks_for_stay_multiples():
    pruning = {**PRUNING, "shrink": {"round_to": 8}}
    model, session, _ = attached({"pruning": pruning}, example_inputs=INPUTS)
    session.shrink()
    assert model[0].out_features == 16


def test_what_is_given_to_shrink_counts_more_than_the_stage():
    pruning = {**PRUNING, "shrink": {"round_to": 8}}
    model, session, _ = attached({"pruning": pruning}, example_inputs=INPUTS)
    session.shrink(round_to=1)
    assert model[0].out_features == 10


def test_shrinking_before_the_end_counts_for_the_stage():
    recipe = {"stages": [{"until": 3, "pruning": {**PRUNING, "shrink": True}}]}
    model, session, optimizer = attached(recipe, example_inputs=INPUTS)
    session.shrink(optimizer=optimizer)
    train(model, session, optimizer, 4)
    assert len(session.shrinks) == 1


def test_pruning_that_has_not_begun_does_not_hold_up_what_ends_before():
    later = {**GROWING, "config_list": [{"op_names": ["2"], "sparse_ratio": 0.34}]}
    recipe = {"stages": [{"until": 2, "shrink": True, "pruning": PRUNING}, {"pruning": later}]}
    model, session, optimizer = attached(recipe, example_inputs=INPUTS)
    train(model, session, optimizer, 5)
    assert model[0].out_features == 10
    assert int((~session.masks()["2"]["weight"].any(1)).sum()) == 1


def test_a_saved_session_knows_what_was_shrunk(tmp_path):
    model, session, optimizer = attached(ONE_AFTER_ANOTHER, example_inputs=INPUTS)
    train(model, session, optimizer, 4)
    session.save(tmp_path / "session")
    again = tersely.load_session(network(), tmp_path / "session", example_inputs=INPUTS)
    assert again.to_shrink == ()
    assert again.shrinks == session.shrinks
    assert again.report().to_dict()["shrinks"] == session.report().to_dict()["shrinks"]


def test_the_report_shows_each_module_before_and_after():
    _, session, _ = attached({"pruning": {**PRUNING, "shrink": True}}, example_inputs=INPUTS)
    session.shrink()
    report = session.report()
    (shrunk,) = report.to_dict()["shrinks"]
    batch = 4
    assert shrunk["modules"] == [
        {
            "module": "0",
            "parameters": {"before": 6 * 20 + 20, "after": 6 * 10 + 10},
            "macs": {"before": batch * 6 * 20, "after": batch * 6 * 10},
            "bytes": {"before": 4 * (6 * 20 + 20), "after": 4 * (6 * 10 + 10)},
        },
        {
            "module": "2",
            "parameters": {"before": 20 * 3 + 3, "after": 10 * 3 + 3},
            "macs": {"before": batch * 20 * 3, "after": batch * 10 * 3},
            "bytes": {"before": 4 * (20 * 3 + 3), "after": 4 * (10 * 3 + 3)},
        },
    ]
    assert "203 -> 103 (50.74 %)" in str(report)
    assert type(report).from_dict(report.to_dict()) == report


def test_a_stage_that_masks_single_elements_only_is_refused_in_planning():
    pruning = {**PRUNING, "algorithm": "level", "shrink": True}
    with pytest.raises(tersely.PlanError, match="pruning: shrink removes whole rows and columns"):
        tersely.plan(network(), {"pruning": pruning})


def convolutions(norm):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Conv2d(4, 2, 3, bias=False))


def hints_at_norms(norm, *, types=("Conv2d",), **keys):
    pruning = {
        "algorithm": "l1_norm",
        "config_list": [{"op_types": list(types), "exclude_op_names": ["3"], "sparse_ratio": 0.5}],
        **keys,
    }
    plan = tersely.plan(
        convolutions(norm), {"pruning": pruning}, example_inputs=torch.randn(2, 1, 8, 8)
    )
    return [hint for hint in plan.hints if "shift" in hint]


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, partial(nn.InstanceNorm2d, affine=True)])
def test_a_norm_that_would_keep_masked_channels_is_named_before_training(norm):
    kind = type(norm(4)).__name__
    (hint,) = hints_at_norms(norm(4), shrink=True, dependency_groups="auto")
    assert hint.startswith("pruning: 1: not pruned with the layer before")
    assert hint.endswith(f"add {kind} to the op_types of the layers before them")
    (hint,) = hints_at_norms(norm(4), shrink=True)
    assert hint.endswith(f"dependency_groups: auto and {kind} in op_types")


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, partial(nn.InstanceNorm2d, affine=True)])
def test_shrink_keeps_what_the_hint_at_norms_says_and_removes_it_with_the_norm(norm):
    kept = []
    for types in (["Conv2d"], ["Conv2d", type(norm(4)).__name__]):
        model = convolutions(norm(4)).eval()
        nn.init.constant_(model[1].bias, 0.5)
        entry = {"op_types": types, "exclude_op_names": ["3"], "sparse_ratio": 0.5}
        stage = {"algorithm": "l1_norm", "dependency_groups": "auto", "config_list": [entry]}
        images = torch.randn(2, 1, 8, 8)
        session = tersely.attach(model, {"pruning": stage}, example_inputs=images)
        session.compress()
        session.shrink(images)
        kept.append(model[0].out_channels)
    assert kept == [4, 2]


@pytest.mark.parametrize(
    ("norm", "keys"),
    [
        (nn.BatchNorm2d(4), {"dependency_groups": "auto"}),
        (nn.BatchNorm2d(4, affine=False), {"dependency_groups": "auto", "shrink": True}),
        (
            nn.BatchNorm2d(4),
            {"dependency_groups": "auto", "shrink": True, "types": ("Conv2d", "BatchNorm2d")},
        ),
    ],
)
def test_no_norm_is_named_where_none_keeps_a_channel(norm, keys):
    assert hints_at_norms(norm, **keys) == []


class Attention(nn.Module):
    def __init__(self, *, is_packed=False):
        super().__init__()
        self.is_packed = is_packed
        if is_packed:
            self.packed = nn.Linear(8, 24)
        else:
            self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.out = nn.Linear(8, 8)

    def forward(self, x):
        parts = (
            self.packed(x).chunk(3, -1)
            if self.is_packed
            else (self.query(x), self.key(x), self.value(x))
        )
        query, key, value = (part.view(len(x), -1, 2, 4).transpose(1, 2) for part in parts)
        found = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.out(found.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    ("is_packed", "names", "said"),
    [
        (False, ["query", "key", "value"], "query.weight and 2 more: equally many channels"),
        (True, ["packed"], "packed.weight: equally many channels"),
    ],
)
def test_channels_of_heads_that_shrink_would_keep_are_named_before_training(is_packed, names, said):
    pruning = {
        "algorithm": "l1_norm",
        "dependency_groups": "auto",
        "config_list": [{"op_names": names, "sparse_ratio": 0.5}],
    }

    def hints(**keys):
        recipe = {"pruning": {**pruning, **keys}}
        model = Attention(is_packed=is_packed)
        plan = tersely.plan(model, recipe, example_inputs=torch.randn(2, 3, 8))
        return [hint for hint in plan.hints if "heads" in hint]

    assert hints() == []
    (hint,) = hints(shrink=True)
    assert hint.startswith(f"pruning: {said} are masked in each of 2 runs")
    packed = " and dependency_parts: 3" if is_packed else ""
    assert f"give query, key and value granularity: [4, -1]{packed}, what" in hint
