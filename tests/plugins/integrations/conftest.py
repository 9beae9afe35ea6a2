"""One small network, its data, and the plain loop that every framework is compared with."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

import tersely

LINEAR = [{"op_types": ["Linear"], "sparse_ratio": 0.5}]
AGP = {
    "pruning": {
        "algorithm": "level",
        "schedule": {"name": "agp", "every": 2, "times": 3},
        "config_list": LINEAR,
    }
}
MOVEMENT = {
    "pruning": {
        "algorithm": "movement",
        "options": {"warmup_steps": 1, "cooldown_begin_step": 6},
        "config_list": [
            {"op_types": ["Linear"], "sparse_threshold": 0.4, "target_names": ["weight"]}
        ],
    }
}
SLIM = {
    "pruning": {
        "algorithm": "slim",
        "options": {"regular_scale": 0.25},
        "schedule": {"name": "agp", "every": 2, "times": 3},
        "config_list": LINEAR,
    }
}
QAT = {
    "quantization": {
        "algorithm": "qat",
        "config_list": [
            {
                "op_types": ["Linear"],
                "target_names": ["_input_", "weight"],
                "quant_dtype": "int8",
            }
        ],
    }
}
PIPELINE = {
    "stages": [
        {**AGP, "until": 6},
        {"quantization": {**QAT["quantization"], "algorithm": "ptq"}},
    ]
}
DISTILLED = {
    "distillation": {
        "task_loss_weight": 0.5,
        "config_list": [
            {"op_names": ["net.2"], "lambda": 0.75, "apply_method": "mse"},
            {
                "op_names": ["net.0"],
                "lambda": 0.25,
                "apply_method": {"decoupled_kl": {"labels": "labels"}},
            },
        ],
    }
}


class Net(nn.Module):
    """A small classifier of four numbers, with its loss when it is given labels."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)

    def forward(self, inputs, labels=None):
        logits = self.net(inputs)
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        return {"logits": logits} if loss is None else {"loss": loss, "logits": logits}


def batches(count, size=4):
    """Batches of inputs and labels, the same in every call."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, size, 4, generator=generator)
    labels = torch.randint(0, 3, (count, size), generator=generator)
    return list(zip(inputs, labels, strict=True))


def samples(count, size=4):
    """The same data one sample after the other, as mappings."""
    return [
        {"inputs": one, "labels": label}
        for inputs, labels in batches(count, size)
        for one, label in zip(inputs, labels, strict=True)
    ]


def sgd(tensors):
    return torch.optim.SGD(tensors, lr=0.1, momentum=0.9)


def train(model, session, data, *, accumulate=1):
    """The plain loop of the documentation."""
    optimizer = sgd(model.parameters())
    model.train()
    for number, (inputs, labels) in enumerate(data, start=1):
        outputs = model(inputs, labels)
        if session.teacher is not None:
            session.teacher_forward(inputs)
        total = session.total_loss(outputs["loss"], batch={"labels": labels})
        (total / accumulate).backward()
        if number % accumulate == 0:
            optimizer.step()
            session.step()
            optimizer.zero_grad()


def calibration():
    """Batches of inputs to calibrate with."""
    return [inputs * 2 for inputs, _ in batches(2)]


def trained(recipe, data, *, teacher=None, accumulate=1):
    """A model and its session after the plain loop."""
    model = Net()
    session = tersely.attach(model, recipe, teacher=teacher)
    if recipe is PIPELINE:
        session.calibrate(calibration())
    session.compress()
    train(model, session, data, accumulate=accumulate)
    return model, session


def assert_same(session, expected):
    """Weights, masks, scales and what is learned are those of the other session, bit for bit."""
    own, other = session.model.state_dict(), expected.model.state_dict()
    renamed = {name.removeprefix("model."): value for name, value in own.items()}
    assert renamed.keys() == other.keys()
    for name, value in other.items():
        assert torch.equal(renamed[name], value), name
    assert session.steps == expected.steps


@pytest.fixture(scope="session")
def loops():
    return SimpleNamespace(
        AGP=AGP,
        MOVEMENT=MOVEMENT,
        SLIM=SLIM,
        QAT=QAT,
        BOTH={**AGP, **QAT},
        DISTILLED=DISTILLED,
        PIPELINE=PIPELINE,
        calibration=calibration,
        Net=Net,
        batches=batches,
        samples=samples,
        sgd=sgd,
        train=train,
        trained=trained,
        assert_same=assert_same,
    )
