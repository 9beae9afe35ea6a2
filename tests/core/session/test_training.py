"""Masks hold while the user trains, whatever the optimizer does to the raw weights."""

import pytest
import torch
from messages.sessions import NOTHING_KEPT
from torch import nn

import tersely

pytestmark = pytest.mark.usefixtures("toy_pruners")

CONFIG = [{"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}]
OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "momentum_and_decay": lambda parameters: torch.optim.SGD(
        parameters, lr=0.1, momentum=0.9, weight_decay=0.1
    ),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.1),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_masked_weights_stay_zero_while_the_others_learn(build, data, optimizer):
    model = build()
    optimizer = OPTIMIZERS[optimizer](model.parameters())
    session = tersely.prune(model, CONFIG, algorithm="toy")
    kept = session.masks()["0"]["weight"]
    first = model[0].weight.detach().clone()
    for _ in range(5):
        model(data).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        session.step()
    assert int(model[0].weight[~kept].count_nonzero()) == 0
    assert not torch.equal(model[0].weight[kept], first[kept])
    assert session.sparsity()["0"]["weight"] == 0.5


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_agrees_with_a_mask_written_by_hand(build, data, optimizer):
    model, plain = build(), build()
    session = tersely.prune(model, CONFIG, algorithm="toy")
    masks = [session.masks()[name]["weight"].float() for name in ("0", "2")]

    def by_hand(value):
        hidden = torch.relu(nn.functional.linear(value, plain[0].weight * masks[0], plain[0].bias))
        return nn.functional.linear(hidden, plain[2].weight * masks[1], plain[2].bias)

    ours = OPTIMIZERS[optimizer](model.parameters())
    theirs = OPTIMIZERS[optimizer](plain.parameters())
    for _ in range(5):
        model(data).square().mean().backward()
        ours.step()
        ours.zero_grad()
        session.step()
        by_hand(data).square().mean().backward()
        theirs.step()
        theirs.zero_grad()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


def test_without_a_schedule_step_only_counts(build, data):
    session = tersely.prune(build(), CONFIG, algorithm="toy")
    before = session.masks()
    for _ in range(3):
        session.step()
    assert session.steps == 3
    assert len(session.history) == 1
    assert torch.equal(session.masks()["0"]["weight"], before["0"]["weight"])


def test_a_fused_optimizer_step_keeps_the_masks(build, data):
    model = build()
    session = tersely.prune(model, CONFIG, algorithm="toy")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=True)
    model(data).square().mean().backward()
    optimizer.step()
    session.step()
    assert int((model[0].weight == 0).sum()) == 16


@pytest.mark.filterwarnings(f"ignore:.*{NOTHING_KEPT}")
def test_gradient_clipping_sees_no_gradient_of_masked_weights(build, data):
    model = build()
    tersely.prune(model, [{**CONFIG[0], "sparse_ratio": 1}], algorithm="toy")
    model(data).square().mean().backward()
    weights = [one for name, one in model.named_parameters() if name.endswith("weight")]
    assert nn.utils.clip_grad_norm_(weights, 1.0).item() == 0.0


def test_an_averaged_copy_of_the_model_is_masked_too(build, data):
    model = build()
    tersely.prune(model, CONFIG, algorithm="toy")
    average = torch.optim.swa_utils.AveragedModel(model)
    with torch.no_grad():
        model._modules["0"]._parameters["weight"].add_(1)
    average.update_parameters(model)
    average.update_parameters(model)
    assert int((average.module[0].weight == 0).sum()) == 16
