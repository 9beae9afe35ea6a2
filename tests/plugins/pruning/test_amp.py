"""Accumulated gradients, autocast and loss scalers: masks are those of the plain loop."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

import tersely

OPTIONS = {
    "taylor": {},
    "slim": {"regular_scale": 0.01},
    "movement": {"warmup_steps": 1, "cooldown_begin_step": 6},
}
ALGORITHMS = tuple(OPTIONS)
LEARNED = ("slim", "movement")


class Net(nn.Module):
    """A convolution and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(3, 8, 3, bias=False)
        self.head = nn.Linear(8, 4, bias=False)

    def forward(self, inputs):
        return self.head(self.conv(inputs).relu().mean(2))


def begin(algorithm):
    torch.manual_seed(0)
    model = Net()
    entry = {"op_types": ["Conv1d", "Linear"], "sparse_ratio": 0.5}
    stage = {"algorithm": algorithm, "options": OPTIONS[algorithm], "config_list": [entry]}
    return model, tersely.attach(model, {"pruning": stage})


def batches(count):
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        inputs = torch.randn(16, 3, 7, generator=generator)
        yield inputs, inputs.mean((1, 2)).mul(3).add(2).round().clamp(0, 3).long()


def sgd(tensors):
    return torch.optim.SGD(tensors, lr=0.1)


def train(model, session, *, steps=6, parts=1, dtype=None, scaler=None, optimizer=None, hurt=()):
    """The user's loop; in the steps of ``hurt`` the loss overflows."""
    optimizer = optimizer or sgd(model.parameters())
    scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
    for step, (inputs, labels) in enumerate(batches(steps)):
        optimizer.zero_grad()
        for some, wanted in zip(inputs.chunk(parts), labels.chunk(parts), strict=True):
            with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
                loss = functional.cross_entropy(model(some), wanted)
            loss = session.total_loss(loss) / parts
            scaler.scale(loss * float("inf") if step in hurt else loss).backward()
        scaler.step(optimizer)
        scaler.update()
        session.step()


def gathered(session):
    """What the session observed and learned."""
    kinds = ("observed:", "learned:")
    return {name: one for name, one in session.state()[0].items() if name.startswith(kinds)}


def assert_same_masks(session, expected):
    for module, targets in expected.masks().items():
        for target, mask in targets.items():
            assert torch.equal(session.masks()[module][target], mask), f"{module}.{target}"


def compare(session, expected, **tolerance):
    found, wanted = gathered(session), gathered(expected)
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], **tolerance, msg=name)
    session.compress()
    expected.compress()
    assert_same_masks(session, expected)


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_batch_in_parts_gives_what_the_whole_batch_gives(algorithm, parts):
    model, session = begin(algorithm)
    train(model, session, parts=parts)
    other, expected = begin(algorithm)
    train(other, expected)
    compare(session, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_in_autocast_what_is_gathered_stays_in_full_precision(algorithm):
    model, session = begin(algorithm)
    train(model, session, dtype=torch.bfloat16)
    other, expected = begin(algorithm)
    train(other, expected)
    for name, tensor in gathered(session).items():
        assert tensor.dtype is torch.float32
        # bfloat16 has 8 bits: what six steps add up is off by some hundredths.
        torch.testing.assert_close(tensor, gathered(expected)[name], rtol=0.2, atol=0.05)
    session.compress()
    assert session.sparsity()["conv"]["weight"] == session.sparsity()["head"]["weight"] == 0.5


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_loss_scaler_changes_nothing_that_decides(algorithm):
    model, session = begin(algorithm)
    train(model, session, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10))
    other, expected = begin(algorithm)
    train(other, expected)
    # Powers of two scale exactly; Adam, which moves what is learned, divides by its gradients.
    exact = {"rtol": 0, "atol": 0} if algorithm == "taylor" else {"rtol": 1e-3, "atol": 1e-5}
    compare(session, expected, **exact)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_step_that_the_scaler_skips_teaches_nothing(algorithm):
    model, session = begin(algorithm)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    train(model, session, steps=3, scaler=scaler)
    before = {name: one.clone() for name, one in gathered(session).items()}
    weights = [one.detach().clone() for one in model.parameters()]
    train(model, session, steps=1, scaler=scaler, hurt=[0])
    assert session.steps == 4
    for name, tensor in gathered(session).items():
        assert torch.equal(tensor, before[name]), name
    for one, value in zip(weights, model.parameters(), strict=True):
        assert torch.equal(one, value)
    train(model, session, steps=1, scaler=scaler)
    assert all(not torch.equal(one, before[name]) for name, one in gathered(session).items())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_everything_at_once(algorithm):
    model, session = begin(algorithm)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    train(model, session, steps=8, parts=2, dtype=torch.bfloat16, scaler=scaler, hurt=[2])
    session.compress()
    assert session.sparsity()["conv"]["weight"] == session.sparsity()["head"]["weight"] == 0.5
    assert scaler.get_scale() == 2.0


@pytest.mark.parametrize("algorithm", LEARNED)
def test_what_the_users_optimizer_moves_is_unscaled_and_skipped_with_everything_else(algorithm):
    model, session = begin(algorithm)
    optimizer = sgd([*model.parameters(), *session.parameters()])
    # The scale halves in the step that overflows, and doubles with every second step after it.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=2)
    train(model, session, scaler=scaler, optimizer=optimizer, hurt=[0])
    other, expected = begin(algorithm)
    optimizer = sgd([*other.parameters(), *expected.parameters()])
    kept = list(itertools.islice(batches(6), 1, 6))
    expected.step()
    for inputs, labels in kept:
        optimizer.zero_grad()
        expected.total_loss(functional.cross_entropy(other(inputs), labels)).backward()
        optimizer.step()
        expected.step()
    assert scaler.get_scale() == 2.0**9
    compare(session, expected, rtol=0, atol=0)
