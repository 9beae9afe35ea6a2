"""A tap holds what the module produced, whatever happens to the tensor later (D4.2, D4.3)."""

import copy

import pytest
import torch
from messages.planning import SEVERAL_TENSORS, WRITE_THE_KEY
from messages.sessions import NOT_SEEN_OF_STUDENT
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import tersely

pytestmark = pytest.mark.usefixtures("toy_losses")

X = torch.linspace(-2, 2, 24).reshape(4, 6)


class Writing(nn.Module):
    """A layer whose output is written into in one of the ways that models do."""

    def __init__(self, how, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.layer, self.head, self.how = nn.Linear(6, 6), nn.Linear(6, 2), how

    def forward(self, x):
        hidden = self.layer(x)
        if self.how == "relu":
            hidden = functional.relu(hidden, inplace=True)
        elif self.how == "residual":
            hidden += x
        elif self.how == "slice":
            hidden = hidden * 1
            hidden[:, 2:4] = 0
        elif self.how == "view":
            hidden.view(-1)[::2].zero_()
        return self.head(hidden)


def distil(student, teacher, *, target="_output_", name="layer"):
    entry = {"op_names": [name], "target_names": [target], "apply_method": "toy_square"}
    return tersely.distill(student, [entry], teacher=teacher)


@pytest.mark.parametrize("mine", ["nothing", "relu", "residual", "slice", "view"])
@pytest.mark.parametrize("theirs", ["nothing", "relu", "residual"])
def test_the_loss_compares_what_the_layers_produced(mine, theirs):
    student, teacher = Writing(mine, 0), Writing(theirs, 1)
    want = (student.layer(X) - teacher.layer(X)).square().mean().item()
    session = distil(student, teacher)
    student(X)
    session.teacher_forward(X)
    assert session.loss().item() == pytest.approx(want)


def test_the_gradient_reaches_the_layer_whose_output_is_written_into():
    student, plain, teacher = Writing("relu", 0), Writing("nothing", 0), Writing("nothing", 1)
    session = distil(student, teacher)
    student(X)
    session.teacher_forward(X)
    session.loss().backward()
    (plain.layer(X) - teacher.layer(X).detach()).square().mean().backward()
    assert torch.allclose(student.layer.weight.grad, plain.layer.weight.grad)


def test_the_input_of_a_module_that_works_in_place_is_what_came_in():
    student = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True))
    teacher = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    want = (student[0](X) - teacher[0](X)).square().mean().item()
    session = distil(student, teacher, target="_input_", name="1")
    student(X)
    session.teacher_forward(X)
    assert session.loss().item() == pytest.approx(want)


def test_cached_targets_of_a_teacher_are_what_its_layer_produced(tmp_path):
    student, teacher = Writing("nothing", 0), Writing("relu", 1)
    want = (student.layer(X) - teacher.layer(X)).square().mean().item()
    session = distil(student, teacher)
    session.cache_teacher([X], tmp_path / "cache")
    session.use_teacher_cache(tmp_path / "cache")
    student(X)
    session.teacher_batch(0)
    assert session.loss().item() == pytest.approx(want)


class Checkpointed(nn.Module):
    def __init__(self, *, use_reentrant=None):
        super().__init__()
        torch.manual_seed(3)
        self.part = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
        self.head, self.use_reentrant, self.is_skipping = nn.Linear(6, 2), use_reentrant, False

    def forward(self, x):
        if self.is_skipping:
            return self.head(x)
        if self.use_reentrant is None:
            return self.head(self.part(x))
        return self.head(checkpoint(self.part, x, use_reentrant=self.use_reentrant))


def test_a_part_that_is_recomputed_in_backward_fills_no_tap():
    student, teacher = Checkpointed(use_reentrant=False), Checkpointed()
    session = distil(student, teacher, name="part.0")
    output = student(X)
    session.teacher_forward(X)
    session.total_loss(output.square().mean()).backward()
    student.is_skipping = True
    student(X)
    session.teacher_forward(X)
    with pytest.raises(tersely.SessionError, match=f"part\\.0\\._output_ {NOT_SEEN_OF_STUDENT}"):
        session.loss()


def test_a_part_that_is_checkpointed_reentrantly_is_an_error_that_says_how_to_checkpoint_it():
    student, teacher = Checkpointed(use_reentrant=True), Checkpointed()
    session = distil(student, teacher, name="part.0")
    student(X.clone().requires_grad_())
    session.teacher_forward(X)
    with pytest.raises(tersely.SessionError, match="checkpointing write use_reentrant=False"):
        session.loss()


class Returning(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, x, labels=None):
        logits = self.layer(x)
        loss = {} if labels is None else {"loss": functional.mse_loss(logits, labels)}
        return {**loss, "logits": logits}


def test_a_mapping_with_several_tensors_is_refused_with_the_loss_and_not_in_the_forward():
    student, teacher = Returning(), Returning()
    session = distil(student, teacher, name="")
    labels = torch.zeros(4, 2)
    student(X, labels)
    session.teacher_forward(X, labels)
    with pytest.raises(tersely.SessionError) as caught:
        session.loss()
    assert str(caught.value) == (
        f"output target '_output_' of a Returning {SEVERAL_TENSORS}: loss, logits; "
        f"{WRITE_THE_KEY} _output_loss"
    )
    student(X)
    session.teacher_forward(X)
    want = (student.layer(X) - teacher.layer(X)).square().mean().item()
    assert session.loss().item() == pytest.approx(want)


def test_a_copy_of_a_session_that_ends_leaves_the_taps_of_the_original():
    session = distil(student := Writing("nothing", 0), teacher := Writing("nothing", 1))
    copy.deepcopy(session).finalize()
    student(X)
    session.teacher_forward(X)
    want = (student.layer(X) - teacher.layer(X)).square().mean().item()
    assert session.loss().item() == pytest.approx(want)
