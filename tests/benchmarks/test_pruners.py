"""Importances against the least that has to be computed or read for them."""

import pytest
import torch
from torch import nn

import tersely
from tersely.contracts.settings import PruningSetting
from tersely.contracts.target_plan import Origin, TargetPlan

pytestmark = pytest.mark.benchmark


def target_of(weight, size):
    plan = TargetPlan(
        module="conv",
        target="weight",
        kind="parameter",
        method="pruning",
        algorithm="",
        setting=PruningSetting(),
        origin=Origin("pruning.config_list[0]"),
    )
    blocks = tersely.Blocks(size)
    return tersely.PruningTarget(plan=plan, tensor=weight, blocks=blocks, module=nn.Identity())


@pytest.fixture(scope="module")
def filters():
    return torch.randn(2048, 512, 3, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("count", [512, 2048])
def test_fpgm_costs_less_than_one_matrix_product(least_ratio, filters, count):
    target = target_of(filters[:count], (1, -1, -1, -1))
    pruner = tersely.registry().pruners["fpgm"]()
    vectors = filters[:count].flatten(1)
    found = least_ratio(lambda: pruner.importance(target), lambda: vectors @ vectors.T, repeats=15)
    assert found <= {512: 1.0, 2048: 0.8}[count]


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("name", ["l1_norm", "l2_norm"])
@pytest.mark.parametrize("size", [(1, -1, -1, -1), (-1, 1, -1, -1)])
def test_norms_cost_less_than_a_copy_of_the_weights(least_ratio, filters, name, size):
    target = target_of(filters, size)
    pruner = tersely.registry().pruners[name]()
    dims = [dim for dim, entry in enumerate(size) if entry == -1]
    power = {"l1_norm": 1, "l2_norm": 2}[name]
    found = least_ratio(
        lambda: pruner.importance(target),
        lambda: filters.abs().pow(power).sum(dims),
        repeats=9,
    )
    assert found <= 0.8
