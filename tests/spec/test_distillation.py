"""Family distillation: the losses, and the steps of a session that compares two models."""

import pytest
import torch
from torch import nn

import tersely

pytestmark = pytest.mark.usefixtures("own_losses")


class Constant(nn.Module):
    """Returns what the case says that the module returned."""

    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value, dtype=torch.float64))

    def forward(self):
        return self.value + 0


class Step(nn.Module):
    """Calls those of its modules that the case gives a value."""

    def __init__(self, values, names):
        super().__init__()
        self.called = tuple(values)
        for name in names:
            self.add_module(name, Constant(values.get(name, 0.0)))

    def forward(self):
        return [self.get_submodule(name)() for name in self.called]


def attach(given):
    """The session of a case whose two models have run once."""
    student = Step(given["student"], given["student"])
    teacher = None
    if "teacher" in given:
        # What the teacher was not seen to return is there all the same.
        teacher = Step(given["teacher"], {**given["student"], **given["teacher"]})
    session = tersely.attach(student, {"distillation": given["stage"]}, teacher=teacher)
    outputs = dict(zip(student.called, student(), strict=True))
    for name, value in given.get("written", {}).items():
        outputs[name].copy_(torch.tensor(value, dtype=torch.float64))
    if teacher is not None:
        session.teacher_forward()
    return session


def loss_of(given):
    """The loss of a case, which may have a batch."""
    batch = given.get("batch")
    if isinstance(batch, dict):
        batch = {name: torch.tensor(part) for name, part in batch.items()}
    elif batch is not None:
        batch = [torch.tensor(part) for part in batch]
    return attach(given).loss(batch=batch)


@pytest.mark.spec("distillation", has="loss")
def test_loss(case):
    given = case["given"]
    chosen = given["loss"]
    [(name, options)] = chosen.items() if isinstance(chosen, dict) else [(chosen, {})]
    student = torch.tensor(given["student"], dtype=torch.float64)
    teacher = torch.tensor(given["teacher"], dtype=torch.float64)
    inputs = {option: torch.tensor(one) for option, one in given.get("inputs", {}).items()}
    found = tersely.registry().losses[name](student, teacher, **options, **inputs)
    assert found.shape == ()
    assert float(found) == pytest.approx(case["expect"]["value"], abs=1e-11)


@pytest.mark.spec("distillation", has="stage", expects="loss")
def test_the_loss_of_a_session(case):
    assert loss_of(case["given"]).item() == pytest.approx(case["expect"]["loss"], abs=1e-11)


@pytest.mark.spec("distillation", has="stage", expects="total_loss")
def test_the_total_loss_of_a_session(case):
    task_loss = torch.tensor(case["given"]["task_loss"], dtype=torch.float64)
    total = attach(case["given"]).total_loss(task_loss)
    assert total.item() == pytest.approx(case["expect"]["total_loss"], abs=1e-11)


@pytest.mark.spec("distillation", expects="projection")
def test_the_projection_of_a_session(case):
    session = attach(case["given"])
    session.loss().backward()
    weight, *_ = session.parameters()
    assert list(weight.shape) == case["expect"]["projection"]
    assert weight.grad.abs().sum() > 0


@pytest.mark.spec("distillation", expects="teacher_training")
def test_the_teacher_of_a_session(case):
    given, modes = case["given"], []
    session = attach(given)
    for name in given["teacher"]:
        session.teacher.get_submodule(name).register_forward_hook(
            lambda module, args, output: modes.append((module.training, output.requires_grad))
        )
    session.teacher_forward()
    expected = (case["expect"]["teacher_training"], case["expect"]["teacher_has_graph"])
    assert modes == [expected] * len(given["teacher"])


@pytest.mark.spec("distillation", expects="error")
def test_what_a_session_refuses(case, assert_mentions):
    with pytest.raises((tersely.SessionError, tersely.PlanError)) as caught:
        loss_of(case["given"])
    assert_mentions([str(caught.value)], [case["expect"]["error"]])


@pytest.mark.spec("distillation", expects="losses")
def test_the_losses_of_a_session_that_is_saved(case, tmp_path):
    session = attach(case["given"])
    *expected, last = case["expect"]["losses"]
    found = []
    for _ in expected:
        found.append(session.loss().item())
        session.step()
        session.model()
    session.save(tmp_path / "saved")
    given = case["given"]
    model = Step(given["student"], given["student"])
    loaded = tersely.load_session(model, tmp_path / "saved")
    model()
    found.append(loaded.loss().item())
    assert found == pytest.approx([*expected, last])


@pytest.mark.spec("distillation", expects="learned")
def test_what_a_session_learns(case):
    session = attach(case["given"])
    session.loss()
    assert sorted(session.learned()) == case["expect"]["learned"]
