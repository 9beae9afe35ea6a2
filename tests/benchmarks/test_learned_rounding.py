"""AdaRound against a plain implementation of the paper: batches of kept inputs and autograd.

Processor time on one thread, least of interleaved repeats. The paper takes 10,000 steps of Adam on
batches of 32 inputs; AdaRound takes 500 on the products of all inputs, which a step multiplies once.
"""

import math

import pytest
import torch
from torch import nn

import tersely
from tersely.contracts.settings import QuantizationSetting
from tersely.contracts.target_plan import Origin, TargetPlan

pytestmark = [pytest.mark.benchmark, pytest.mark.usefixtures("_one_thread")]

STEPS, BATCH, RATE = 10_000, 32, 1e-2
LOW, HIGH = -0.1, 1.1
WARM_UP, REGULARIZATION = 0.2, 0.01


def layer(outputs, columns, *, rows=2048):
    """A weight, and inputs whose channels are correlated."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, columns, generator=generator) / columns**0.5
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
    return weight, torch.randn(rows, columns, generator=generator) @ (mixing + torch.eye(columns))


def target_of(weight):
    plan = TargetPlan(
        module="fc",
        target="weight",
        kind="parameter",
        method="quantization",
        algorithm="adaround",
        setting=QuantizationSetting(),
        origin=Origin("quantization.config_list[0]"),
        shape=tuple(weight.shape),
        module_type="Linear",
        output_dim=0,
        input_dim=1,
        channel_dim=-1,
    )
    return tersely.QuantizationTarget(
        plan=plan,
        quant_min=-7,
        quant_max=7,
        dtype="int4",
        scheme="symmetric",
        blocks=tersely.Blocks((1, -1)),
        module=nn.Linear(weight.shape[1], weight.shape[0], bias=False),
        tensor=weight,
    )


def ours(weight, inputs, **options):
    quantizer = tersely.registry().quantizers["adaround"](**options)
    target = target_of(weight)
    return quantizer.solve(target.evolve(observed=quantizer.observe_input(inputs, target)))


def papers(weight, inputs, scale, *, steps=STEPS):
    """Equations 21 to 25, a batch a step; returns the rounded weight."""
    generator = torch.Generator().manual_seed(0)
    outputs = inputs @ weight.T
    down = (weight / scale).floor()
    raw = torch.logit((weight / scale - down - LOW) / (HIGH - LOW)).requires_grad_()
    adam = torch.optim.Adam([raw], lr=RATE)
    first = WARM_UP * STEPS
    for step in range(steps):
        chosen = torch.randint(len(inputs), (BATCH,), generator=generator)
        share = (torch.sigmoid(raw) * (HIGH - LOW) + LOW).clamp(0, 1)
        soft = scale * (down + share).clamp(-7, 7)
        loss = (inputs[chosen] @ soft.T - outputs[chosen]).square().sum(1).mean()
        if step >= first:
            done = (step - first) / (STEPS - first)
            beta = 2 + 18 * (1 + math.cos(math.pi * done)) / 2
            loss = loss + REGULARIZATION * (1 - (2 * share - 1).abs().pow(beta)).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        return scale * (down + (torch.sigmoid(raw) >= 0.5)).clamp(-7, 7)


def error(changed, weight, inputs):
    return float((inputs @ (changed - weight).T).square().sum())


def test_outputs_are_as_close_as_the_papers_ten_thousand_steps_bring_them(record_property):
    """0.500 of the error of nearest rounding measured, and 0.509 by the paper's steps."""
    weight, inputs = layer(48, 96)
    solution = ours(weight, inputs)
    scale = solution.qparams.scale
    nearest, learned, theirs = (
        error(changed, weight, inputs)
        for changed in (
            scale * (weight / scale).round().clamp(-7, 7),
            solution.tensor,
            papers(weight, inputs, scale),
        )
    )
    record_property("ratio", learned / theirs)
    print(f"of nearest: {learned / nearest:.3f}, the paper's {theirs / nearest:.3f}")  # noqa: T201  # the result
    assert learned <= theirs


@pytest.mark.parametrize(("columns", "bar"), [(96, 0.05), (384, 0.1), (1536, 0.25)])
def test_it_takes_a_fraction_of_the_papers_time(least_ratio, columns, bar):
    """0.03, 0.065 and 0.17 measured: a step is one product of all columns with all others."""
    weight, inputs = layer(384, columns)
    scale = ours(weight, inputs, iterations=0).qparams.scale
    share = 50
    found = least_ratio(
        lambda: ours(weight, inputs),
        lambda: papers(weight, inputs, scale, steps=STEPS // share),  # any of them costs the same
        repeats=2,
    )
    assert found / share <= bar
