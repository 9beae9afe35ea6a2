"""Wanda and SparseGPT against their papers, followed to the letter, one number at a time.

The references invert a Hessian anew for every column, which no one would do to a large layer: they
share neither a factorization nor an order of operations with what they check.
"""

import math

import attrs
import pytest
import torch
from torch import nn

import tersely

FOUR = tersely.Blocks((1, 1), scope=(1, 4), keep=2)
TIGHT = {torch.float64: 1e-9, torch.float32: 2e-3}


def lowest(scores, count):
    """Positions of the lowest scores, ties at the lowest index."""
    return sorted(range(len(scores)), key=lambda at: (scores[at], at))[:count]


def wanda(weight, inputs, *, ratio):
    """Sun et al. 2024, equation 1 and algorithm 1: each row loses its lowest |w| * ||x||.

    ratio is the share of a row, or None for two of every four neighbours.
    """
    rows, columns = weight.shape
    length = [math.sqrt(sum(float(x) ** 2 for x in inputs[:, column])) for column in range(columns)]
    run = 4 if ratio is None else columns
    count = 2 if ratio is None else math.floor(ratio * columns)
    kept = torch.ones(rows, columns, dtype=torch.bool)
    for row in range(rows):
        for first in range(0, columns, run):
            here = range(first, first + run)
            scores = [abs(float(weight[row, column])) * length[column] for column in here]
            for at in lowest(scores, count):
                kept[row, first + at] = False
    return kept


def sparsegpt(weight, inputs, *, ratio, damping, block):
    """Frantar and Alistarh 2023, algorithm 1, with equation 3 for what a masked weight leaves.

    The remaining columns F are those from the current one on; H_F^-1 is the inverse of their part
    of the Hessian. ratio is the share of each block, or None for two of every four neighbours.
    """
    weight, inputs = weight.double().clone(), inputs.double()
    rows, columns = weight.shape
    hessian = inputs.T @ inputs
    hessian += damping * hessian.diagonal().mean() * torch.eye(columns, dtype=torch.float64)
    inverse = [torch.linalg.inv(hessian[first:, first:]) for first in range(columns)]
    kept = torch.ones(rows, columns, dtype=torch.bool)
    run = 4 if ratio is None else block
    for column in range(columns):
        if column % run == 0:
            here = range(column, min(column + run, columns))
            scores = [
                [float(weight[row, at] ** 2 / inverse[at][0, 0]) for at in here]
                for row in range(rows)
            ]
            if ratio is None:
                masked = [(row, at) for row in range(rows) for at in lowest(scores[row], 2)]
            else:
                flat = [score for row in scores for score in row]
                found = lowest(flat, math.floor(ratio * len(flat)))
                masked = [divmod(at, len(here)) for at in found]
            for row, at in masked:
                kept[row, column + at] = False
        for row in range(rows):
            if not kept[row, column]:
                error = weight[row, column] / inverse[column][0, 0]
                weight[row, column:] -= error * inverse[column][0]
                weight[row, column] = 0
    return kept, weight


def layer(seed, *, rows, columns, dtype):
    """A linear layer with inputs that depend on each other, some much longer than others."""
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.float64}
    mixed = torch.randn(96, columns, **draw) @ torch.randn(columns, columns, **draw)
    inputs = mixed * torch.rand(columns, **draw).add(0.1)
    model = nn.Sequential(nn.Linear(columns, rows, bias=False, dtype=dtype))
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(rows, columns, **draw))
    return model, model[0].weight.detach().clone(), inputs.to(dtype)


def prune(model, inputs, *, algorithm, ratio, options=None):
    stage = {
        "algorithm": algorithm,
        "options": options or {},
        "config_list": [{"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.5}],
    }
    if ratio is not None:
        stage["config_list"][0]["sparse_ratio"] = ratio
    plan = tersely.plan(model, {"pruning": stage})
    if ratio is None:
        # What "2:4" resolves to; the granularities are a plugin, which is not needed here.
        plan = attrs.evolve(plan, targets=[attrs.evolve(one, blocks=FOUR) for one in plan])
    session = tersely.attach(model, plan)
    session.calibrate(list(inputs.split(32)))
    session.compress()
    return session.masks()["0"]["weight"], model[0].weight.detach()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("ratio", [0.5, 0.29, None], ids=["half", "29 of 100", "2 of 4"])
@pytest.mark.parametrize("seed", [0, 1])
def test_wanda_is_what_the_paper_says(seed, ratio, dtype):
    model, weight, inputs = layer(seed, rows=7, columns=20, dtype=dtype)
    expected = wanda(weight, inputs, ratio=ratio)
    kept, values = prune(model, inputs, algorithm="wanda", ratio=ratio)
    assert torch.equal(kept, expected)
    assert torch.equal(values, weight * expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("ratio", [0.5, 0.75, None], ids=["half", "three quarters", "2 of 4"])
@pytest.mark.parametrize("seed", [0, 1])
def test_sparsegpt_without_its_refinement_is_what_the_paper_says(seed, ratio, dtype):
    model, weight, inputs = layer(seed, rows=6, columns=24, dtype=dtype)
    options = {"percdamp": 0.01, "block_size": 8, "refine_steps": 0}
    kept, values = prune(model, inputs, algorithm="sparsegpt", ratio=ratio, options=options)
    expected, updated = sparsegpt(weight, inputs, ratio=ratio, damping=0.01, block=8)
    assert torch.equal(kept, expected)
    tolerance = TIGHT[dtype]
    torch.testing.assert_close(values, updated.to(dtype), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("ratio", [0.5, None], ids=["half", "2 of 4"])
def test_sparsegpt_refined_to_the_end_is_least_squares_on_what_is_kept(ratio):
    model, weight, inputs = layer(2, rows=6, columns=24, dtype=torch.float64)
    options = {"percdamp": 0.01, "block_size": 8, "refine_steps": 60}
    kept, values = prune(model, inputs, algorithm="sparsegpt", ratio=ratio, options=options)
    expected, _ = sparsegpt(weight, inputs, ratio=ratio, damping=0.01, block=8)
    assert torch.equal(kept, expected)
    hessian = inputs.T @ inputs
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(24, dtype=torch.float64)
    for row, mask in enumerate(kept):
        best = torch.linalg.solve(hessian[mask][:, mask], (hessian @ weight[row])[mask])
        torch.testing.assert_close(values[row][mask], best, rtol=1e-6, atol=1e-6)
