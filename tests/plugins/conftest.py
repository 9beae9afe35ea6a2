"""Pruning one golden case and comparing every number that the reference stored for it."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

import laconic

ALGORITHMS = {
    "LevelPruner": "level",
    "L1NormPruner": "l1_norm",
    "L2NormPruner": "l2_norm",
    "FPGMPruner": "fpgm",
}

Compare = Callable[[Mapping[str, Any]], None]


@pytest.fixture
def compare_with_reference(golden) -> Compare:
    """Prune a case of ``prune.pt`` and check its importances, masks and outputs."""

    def compare(case):
        model = golden.model(case)
        dense = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        session = laconic.prune(model, case["config_list"], algorithm=ALGORITHMS[case["algo"]])
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
    pruner = laconic.registry().pruners[ALGORITHMS[case["algo"]]]()
    plans = {(plan.module, plan.target): plan for plan in session.plan}
    for module, targets in case["metrics"].items():
        for target, expected in targets.items():
            plan = plans[module, target]
            tensor = dense[plan.name]
            scores = pruner.importance(
                laconic.PruningTarget(
                    plan=plan, tensor=tensor, blocks=plan.blocks, module=torch.nn.Identity()
                )
            )
            if scores.shape != expected.shape:
                scores = laconic.sum_blocks(scores, plan.blocks.size)
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
