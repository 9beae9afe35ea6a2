"""Parts of the batch that losses ask for: labels, indices of samples (rule D5.2)."""

from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch

import tersely

BATCH = torch.tensor([[1.0, 0.0], [2.0, 3.0]])
LABELS = torch.tensor([0, 1])
Pair = namedtuple("Pair", ["inputs", "labels"])


@pytest.fixture
def session(toy_losses, student):
    with torch.no_grad():
        student[0].weight.copy_(torch.eye(2))
    return tersely.distill(student, [{"op_names": ["0"], "apply_method": "toy_labelled"}])


@pytest.mark.parametrize(
    "batch",
    [
        {"inputs": BATCH, "labels": LABELS},
        Pair(BATCH, LABELS),
        SimpleNamespace(labels=LABELS),
    ],
    ids=["mapping", "named tuple", "object"],
)
def test_a_loss_is_given_the_part_of_the_batch_that_it_asks_for(session, batch):
    session.model(BATCH)

    # The outputs at the labels are 1 and 3, and the task loss is 10.
    assert session.total_loss(torch.tensor(10.0), batch=batch).item() == 12


def test_a_config_names_the_part_as_the_batch_has_it(toy_losses, student):
    method = {"toy_labelled": {"labels": 1, "factor": 10.0}}
    session = tersely.distill(student, [{"op_names": ["0"], "apply_method": method}])
    student(BATCH)

    # The rows add up to 1 and 5.
    assert session.loss(batch=[BATCH, LABELS]).item() == 30


def test_a_batch_counts_for_one_loss_only(session):
    session.model(BATCH)
    session.loss(batch={"labels": LABELS})
    session.model(BATCH)

    with pytest.raises(tersely.SessionError, match="there was no batch"):
        session.loss()


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        (None, "there was no batch"),
        ({"inputs": 1, "targets": 2}, "the batch has 'inputs', 'targets'"),
        ((BATCH, LABELS), "the batch is a tuple of 2, whose parts are called by their place"),
        (BATCH, "the batch is a Tensor without it"),
    ],
    ids=["nothing", "mapping", "tuple", "tensor"],
)
def test_a_part_that_is_missing_is_an_error_that_shows_the_call(session, batch, found):
    session.model(BATCH)

    with pytest.raises(tersely.SessionError) as caught:
        session.loss(batch=batch)
    text = str(caught.value)
    assert text.startswith(
        f"0._output_: toy_labelled needs 'labels' of the batch (its option 'labels'), and {found}"
    )
    assert text.endswith(
        "call session.total_loss(task_loss, batch=batch) with a batch that has it, or write what "
        "it is called there: apply_method: {toy_labelled: {labels: ...}}"
    )
