"""Pruning one golden case and comparing every number that the reference stored for it.

Besides, translations to ONNX are read once, not at each export.
"""

import functools
import importlib.util
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

import tersely

ALGORITHMS = {
    "LevelPruner": "level",
    "L1NormPruner": "l1_norm",
    "L2NormPruner": "l2_norm",
    "FPGMPruner": "fpgm",
    "TaylorPruner": "taylor",
    "SlimPruner": "slim",
    "MovementPruner": "movement",
}
SCHEDULES = {"LinearPruner": "linear", "AGPPruner": "agp"}
OPTIONS = {
    "warmup_step": "warmup_steps",
    "cooldown_begin_step": "cooldown_begin_step",
    "regular_scale": "regular_scale",
}

Compare = Callable[[Mapping[str, Any]], None]


@pytest.fixture(scope="session", autouse=True)
def _translations_read_once():
    """Let torch.onnx keep onnxscript's functions, whose sources it reads again at each export."""
    if importlib.util.find_spec("onnxscript") is None:
        yield
        return
    from torch.onnx._internal._lazy_import import onnxscript_apis

    onnxscript_apis.get_torchlib_ops  # imports the module behind the name  # noqa: B018
    module = onnxscript_apis._module
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "get_torchlib_ops", functools.cache(module.get_torchlib_ops))
        yield


@pytest.fixture
def compare_with_reference(golden) -> Compare:
    """Prune a case of ``prune.pt`` and check its importances, masks and outputs."""

    def compare(case):
        model = golden.model(case)
        dense = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        session = tersely.prune(model, case["config_list"], algorithm=ALGORITHMS[case["algo"]])
        check_metrics(session, case, dense)
        check_masks(session, case)
        if "y" in case:
            torch.testing.assert_close(model(case["x"]), case["y"])
        session.detach()
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, dense[name])

    return compare


def check_metrics(session, case, dense):
    """Scores, reduced to one per block, equal the stored metrics."""
    pruner = tersely.registry().pruners[ALGORITHMS[case["algo"]]]()
    plans = {(plan.module, plan.target): plan for plan in session.plan}
    for module, targets in case["metrics"].items():
        for target, expected in targets.items():
            plan = plans[module, target]
            tensor = dense[plan.name]
            scores = pruner.importance(
                tersely.PruningTarget(
                    plan=plan, tensor=tensor, blocks=plan.blocks, module=torch.nn.Identity()
                )
            )
            if scores.shape != expected.shape:
                scores = tersely.sum_blocks(scores, plan.blocks.size)
            torch.testing.assert_close(scores, expected)


def check_masks(session, case):
    """Masks equal the stored ones; a target that the reference stores as None does not exist."""
    found = session.masks()
    for module, targets in case["masks"].items():
        for target, expected in targets.items():
            if expected is None:
                assert target not in found[module]
            elif target.startswith("_input_") or target.startswith("_output_"):
                mask = next(mask for name, mask in found[module].items() if name in target)
                assert torch.equal(mask, expected[0].expand(mask.shape))
            else:
                assert torch.equal(found[module][target], expected)


@pytest.fixture
def train_like_the_reference(golden, monkeypatch) -> Compare:
    """Train a case of ``prune_train.pt`` and check losses, importances, masks and weights."""

    def compare(case):
        importances = remember_importances(monkeypatch)
        model = golden.model(case)
        session = tersely.attach(model, training_recipe(case))
        grows = case["inner_algo"] is not None or case["algo"] == "MovementPruner"
        if grows and case["inner_algo"] != "TaylorPruner":
            session.compress()
        losses = train(case, model, session, golden.models.loss_fn)
        if not grows:
            session.compress()
        assert losses == pytest.approx(case["losses"], rel=1e-5)
        for module, targets in case["metrics"].items():
            for target, expected in targets.items():
                torch.testing.assert_close(importances[module, target], expected)
        check_masks(session, case)
        for name, parameter in model.named_parameters():
            if name in case["final_params"]:
                torch.testing.assert_close(parameter.detach(), case["final_params"][name])

    return compare


def training_recipe(case):
    """The case as a recipe; how long the reference trains is the loop's to say."""
    arguments = case["inner_args"] if case["inner_algo"] else case["algo_args"]
    stage = {
        "algorithm": ALGORITHMS[case["inner_algo"] or case["algo"]],
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


def remember_importances(monkeypatch):
    """What every algorithm last answers, by module and target."""
    seen = {}

    def watch(implementation):
        ask = implementation.importance

        def remember(self, target):
            scores = ask(self, target)
            seen[target.plan.module, target.plan.target] = scores.clone()
            return scores

        monkeypatch.setattr(implementation, "importance", remember)

    for name in ALGORITHMS.values():
        watch(tersely.registry().pruners[name])
    return seen


def train(case, model, session, loss_fn):
    """The loop of a user, one optimizer step after the other; returns the losses."""
    final, initial = case["final_params"], case["state_dict"]
    # Where it prunes by weight alone, the reference's optimizer has lost hold of the weights.
    is_frozen = all(torch.equal(final[name], initial[name]) for name in final if name in initial)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0 if is_frozen else case["lr"])
    losses = []
    model.train()
    for batch in itertools.islice(itertools.cycle(case["train"]), case["steps"]):
        optimizer.zero_grad()
        loss = session.total_loss(loss_fn(batch, model))
        loss.backward()
        optimizer.step()
        session.step()
        losses.append(loss.item())
    return losses
