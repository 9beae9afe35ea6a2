"""Simulating int8 weights per channel and static int8 inputs, against the plain model.

Processor time on one thread, least of interleaved repeats.
"""

import copy

import pytest
import torch
from torch import nn

import tersely

pytestmark = [pytest.mark.benchmark, pytest.mark.usefixtures("_one_thread")]

ENTRY = {
    "op_types": ["Linear", "Conv2d"],
    "target_names": ["_input_", "weight"],
    "target_settings": {"weight": {"granularity": "per_channel"}, "_input_": {}},
}
FORWARD, STEP = 1.2, 1.12
FOLLOWING = 1.4
"""Of a training step whose ranges follow a padded batch: 1.23 to 1.36 on a busy machine.

Both the input and what it became are kept for backward, which clips what lies outside.
"""


def quantized(model, batches, entry):
    twin = copy.deepcopy(model)
    tersely.quantize(twin, [entry], algorithm="ptq", data=batches)
    return twin


def measure(least_ratio, model, twin, call, *, repeats):
    def forward(net):
        with torch.no_grad():
            call(net)

    def step(net):
        call(net).square().mean().backward()
        net.zero_grad()

    assert least_ratio(lambda: forward(twin), lambda: forward(model), repeats=repeats) <= FORWARD
    assert least_ratio(lambda: step(twin), lambda: step(model), repeats=repeats) <= STEP


def test_simulation_on_resnet18_costs_an_eighth(resnet, least_ratio):
    torch.manual_seed(0)
    model: nn.Module = resnet.resnet18().eval()
    batch = torch.randn(8, 3, 224, 224)
    twin = quantized(model, [batch], ENTRY)
    measure(least_ratio, model, twin, lambda net: net(batch), repeats=7)


def test_simulation_on_minilm_costs_an_eighth(minilm, least_ratio):
    model = minilm.load()
    batch = minilm.batches()[0][0]
    entry = {**ENTRY, "op_types": ["Linear"], "op_names_re": [r"encoder\."]}
    twin = quantized(model, [batch], entry)
    measure(least_ratio, model, twin, lambda net: net(**batch).last_hidden_state, repeats=9)


def test_training_that_follows_ranges_on_minilm_costs_two_fifths(minilm, least_ratio):
    model, batch = minilm.load().train(), minilm.batches()[0][0]
    entry = {**ENTRY, "op_types": ["Linear"], "op_names_re": [r"encoder\."]}
    twin = copy.deepcopy(model)
    recipe = {"quantization": {"algorithm": "qat", "config_list": [entry]}}
    session = tersely.attach(twin, recipe)

    def step(net):
        net(**batch).last_hidden_state.square().mean().backward()
        net.zero_grad()

    def following():
        step(twin)
        session.step()

    assert least_ratio(following, lambda: step(model), repeats=5) <= FOLLOWING
