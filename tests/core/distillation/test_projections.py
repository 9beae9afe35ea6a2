"""Learned maps between the student's width and the teacher's (rule D3.3)."""

import copy

import pytest
import torch

import tersely

BATCH = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))


def train(session, steps, *, learned=()):
    optimizer = torch.optim.SGD([*session.model.parameters(), *learned], lr=0.01)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        session.model(BATCH)
        session.teacher_forward(BATCH)
        loss = session.loss()
        loss.backward()
        optimizer.step()
        session.step()
        losses.append(loss.item())
    return losses


@pytest.fixture
def wide(filled):
    return filled(3.0, width=5)


def test_a_projection_leads_to_the_teacher_s_width_and_learns(distilled, wide):
    session = distilled(teacher=wide, projection="linear")

    losses = train(session, 20)

    weight, bias = session._engines.distillation.projections.tensors["0._output_>0"]
    assert weight.shape == (5, 2)
    assert bias.shape == (5,)
    assert losses[-1] < losses[0]


def test_equal_widths_have_no_projection(distilled):
    session = distilled(projection="linear")

    train(session, 1)

    assert session._engines.distillation.projections.tensors == {}


def test_other_widths_without_a_projection_are_an_error_that_names_both(distilled, wide):
    session = distilled(teacher=wide)

    with pytest.raises(tersely.SessionError, match=r"shapes \[4, 2\] and \[4, 5\] differ"):
        train(session, 1)


def test_parameters_wait_for_the_first_batch(distilled, wide):
    session = distilled(teacher=wide, projection="linear")

    with pytest.raises(tersely.SessionError, match="is made when the first batch shows"):
        session.parameters()


def test_the_user_s_optimizer_moves_projections_once_asked(distilled, wide):
    session = distilled(teacher=wide, projection="linear")
    train(session, 1)
    learned = list(session.parameters())
    before = [tensor.detach().clone() for tensor in learned]

    train(session, 1)
    assert all(torch.equal(one, other) for one, other in zip(learned, before, strict=True))
    train(session, 1, learned=learned)

    assert not torch.equal(learned[0], before[0])


def test_making_a_projection_leaves_random_numbers_alone(distilled, wide):
    session = distilled(teacher=wide, projection="linear")
    torch.manual_seed(0)
    expected = torch.rand(1)

    torch.manual_seed(0)
    train(session, 1)

    assert torch.equal(torch.rand(1), expected)


def test_projections_go_on_bit_for_bit(distilled, wide, tmp_path, filled):
    session = distilled(teacher=wide, projection="linear")
    train(session, 3)
    session.save(tmp_path / "session")
    twin = filled(1.0)
    twin.load_state_dict(copy.deepcopy(session.model.state_dict()))
    train(session, 3)

    loaded = tersely.load_session(twin, tmp_path / "session", teacher=wide)
    train(loaded, 3)

    one = session._engines.distillation.projections.tensors["0._output_>0"]
    other = loaded._engines.distillation.projections.tensors["0._output_>0"]
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    for name, tensor in session.model.state_dict().items():
        assert torch.equal(tensor, twin.state_dict()[name])
