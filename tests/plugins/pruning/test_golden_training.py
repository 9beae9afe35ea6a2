"""Agreement with the reference where training and pruning go together."""

import itertools

import pytest
import torch
from torch.testing import assert_close

import laconic

SCHEDULES = {"LinearPruner": "linear", "AGPPruner": "agp"}
ALGORITHMS = {
    "LevelPruner": "level",
    "L1NormPruner": "l1_norm",
    "L2NormPruner": "l2_norm",
    "FPGMPruner": "fpgm",
    "TaylorPruner": "taylor",
    "SlimPruner": "slim",
    "MovementPruner": "movement",
}
OPTIONS = {
    "warmup_step": "warmup_steps",
    "cooldown_begin_step": "cooldown_begin_step",
    "regular_scale": "regular_scale",
}


def recipe_of(case):
    """The case as a recipe; how long the reference trains is the loop's to say."""
    inner = case["inner_algo"] or case["algo"]
    arguments = case["inner_args"] if case["inner_algo"] else case["algo_args"]
    stage = {
        "algorithm": ALGORITHMS[inner],
        "options": {OPTIONS[key]: value for key, value in arguments.items() if key in OPTIONS},
        "config_list": case["config_list"],
    }
    if case["inner_algo"]:
        stage["schedule"] = {
            "name": SCHEDULES[case["algo"]],
            "every": case["algo_args"]["interval_steps"],
            "times": case["algo_args"]["total_times"],
        }
    return {"pruning": stage}


@pytest.fixture
def importances(monkeypatch):
    """What every algorithm last answered, by target."""
    seen = {}

    def watch(implementation):
        ask = implementation.importance

        def remember(self, target):
            scores = ask(self, target)
            seen[target.plan.module, target.plan.target] = scores.clone()
            return scores

        monkeypatch.setattr(implementation, "importance", remember)

    for name in ALGORITHMS.values():
        watch(laconic.registry().pruners[name])
    return seen


def learning_rate_of(case):
    """The case's rate; where the reference's optimizer lost hold of the weights, none."""
    final, initial = case["final_params"], case["state_dict"]
    is_frozen = all(torch.equal(final[name], initial[name]) for name in final if name in initial)
    return 0.0 if is_frozen else case["lr"]


def train(case, model, session, golden):
    """The loop of a user, one optimizer step after the other; returns the losses."""
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate_of(case))
    losses = []
    model.train()
    for batch in itertools.islice(itertools.cycle(case["train"]), case["steps"]):
        optimizer.zero_grad()
        loss = session.total_loss(golden.models.loss_fn(batch, model))
        loss.backward()
        optimizer.step()
        session.step()
        losses.append(loss.item())
    return losses


@pytest.mark.golden("prune_train.pt")
def test_losses_importances_masks_and_weights_agree(case, golden, importances):
    model = golden.model(case)
    session = laconic.attach(model, recipe_of(case))
    grows = case["inner_algo"] is not None or case["algo"] == "MovementPruner"
    if grows and case["inner_algo"] != "TaylorPruner":
        session.compress()
    losses = train(case, model, session, golden)
    if not grows:
        session.compress()

    assert losses == pytest.approx(case["losses"], rel=1e-5)
    for module, targets in case["metrics"].items():
        for target, expected in targets.items():
            assert_close(importances[module, target], expected)
    masks = session.masks()
    for module, targets in case["masks"].items():
        for target, expected in targets.items():
            assert torch.equal(masks[module][target], expected)
    parameters = dict(model.named_parameters())
    for name, expected in case["final_params"].items():
        if name in parameters:
            assert_close(parameters[name].detach(), expected)
