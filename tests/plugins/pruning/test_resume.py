"""Every algorithm goes on bit for bit from a session that was saved between two updates."""

import itertools

import attrs
import pytest
import torch
from messages.sessions import BLOCK_BY_BLOCK, CALIBRATE_EACH_SESSION, CALIBRATE_FIRST
from torch import nn
from torch.nn import functional

import tersely

STEPS = 5
"""An odd half of the ten steps, so that it lies between two updates."""


def schedule(name):
    return {"name": name, "begin": 1, "every": 2, "times": 4}


CASES = {
    "l1_norm": {"schedule": schedule("agp")},
    "level": {"schedule": schedule("linear")},
    "fpgm": {"schedule": schedule("linear")},
    "random": {"schedule": schedule("linear"), "options": {"seed": 3}},
    "taylor": {"schedule": schedule("agp")},
    "slim": {"schedule": schedule("linear"), "options": {"regular_scale": 0.01}},
    "movement": {"options": {"warmup_steps": 1, "cooldown_begin_step": 9}},
    "apoz": {"schedule": schedule("linear")},
    "mean_activation": {"schedule": schedule("agp")},
    "wanda": {"schedule": schedule("linear"), "options": {"sequential": False}},
    "sparsegpt": {"schedule": schedule("linear"), "options": {"sequential": False}},
    "wanda, block by block": {"schedule": schedule("linear")},
    "sparsegpt, block by block": {"schedule": schedule("linear")},
}
CALIBRATED = ("apoz", "mean_activation", "wanda", "sparsegpt")


class Net(nn.Module):
    """A stem, two equal blocks and a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(2)))
        self.head = nn.Linear(8, 4)

    def forward(self, inputs):
        return self.head(self.blocks(self.stem(inputs).relu()))


@attrs.frozen
class Training:
    """A model with its session and its optimizer, in the hands of a user."""

    model: nn.Module
    session: tersely.Session
    optimizer: torch.optim.Optimizer


def data():
    generator = torch.Generator().manual_seed(1)
    while True:
        yield torch.randn(16, 6, generator=generator)


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=0.05, weight_decay=0.01)


def recipe(case):
    algorithm = case.partition(",")[0]
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.5}
    return {"pruning": {"algorithm": algorithm, "config_list": [entry], **CASES[case]}}


def is_calibrated(case):
    return case.startswith(CALIBRATED)


def begin(case):
    torch.manual_seed(0)
    model = Net()
    session = tersely.attach(model, recipe(case))
    if is_calibrated(case):
        session.calibrate(itertools.islice(data(), 2))
    if case not in ("taylor", "slim"):
        session.compress()
    return Training(model, session, adam(model))


def train(training, batches):
    for inputs in batches:
        training.optimizer.zero_grad()
        loss = functional.cross_entropy(training.model(inputs), inputs.argmax(1) % 4)
        training.session.total_loss(loss).backward()
        training.optimizer.step()
        training.session.step()


def save(training, folder):
    """What a user saves: the raw weights, the optimizer, the session."""
    weights = {name: value.detach() for name, value in training.model.named_parameters()}
    torch.save([weights, training.optimizer.state_dict()], folder / "checkpoint.pt")
    training.session.save(folder / "session")


def load(folder):
    torch.manual_seed(5)
    model = Net()
    weights, moments = torch.load(folder / "checkpoint.pt", weights_only=True)
    model.load_state_dict(weights)
    optimizer = adam(model)
    optimizer.load_state_dict(moments)
    return Training(model, tersely.load_session(model, folder / "session"), optimizer)


def assert_equal(one, other):
    for (name, value), expected in zip(
        one.model.named_parameters(), other.model.parameters(), strict=True
    ):
        assert torch.equal(value, expected), name
    tensors, about = one.session.state()
    others, expected = other.session.state()
    assert about == expected
    assert sorted(tensors) == sorted(others)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, others[name]), name


@pytest.mark.parametrize("case", CASES)
def test_half_the_steps_saved_and_loaded_and_the_other_half_are_all_of_them(case, tmp_path):
    batches = list(itertools.islice(data(), 2 * STEPS))
    whole = begin(case)
    train(whole, batches)
    first = begin(case)
    train(first, batches[:STEPS])
    save(first, tmp_path)
    second = load(tmp_path)
    assert_equal(second, first)
    if "block by block" in case:
        second.session.calibrate(itertools.islice(data(), 2))
    train(second, batches[STEPS:])
    assert_equal(second, whole)
    # All four layers of equal share: half of the weights, and by then all of the schedule.
    assert whole.session.sparsity()["head"]["weight"] == 0.5
    assert first.session.sparsity()["head"]["weight"] < 0.5


def test_a_loaded_session_that_goes_block_by_block_asks_for_its_batches(tmp_path):
    training = begin("wanda, block by block")
    train(training, itertools.islice(data(), STEPS))
    save(training, tmp_path)
    again = load(tmp_path)
    before = again.session.masks()
    with pytest.raises(tersely.SessionError) as caught:
        train(again, itertools.islice(data(), STEPS))
    assert str(caught.value) == (
        f"stem.weight {BLOCK_BY_BLOCK}; {CALIBRATE_FIRST}, {CALIBRATE_EACH_SESSION}"
    )
    assert torch.equal(again.session.masks()["stem"]["weight"], before["stem"]["weight"])


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_target_that_was_changed_by_an_algorithm_is_still_given_back_dense(steps, tmp_path):
    torch.manual_seed(0)
    dense = Net()
    training = begin("sparsegpt")
    for _ in range(steps):
        training.session.step()
    save(training, tmp_path)
    again = load(tmp_path)
    again.session.detach()
    for value, expected in zip(again.model.parameters(), dense.parameters(), strict=True):
        assert torch.equal(value, expected)
