"""The contract of losses finds every way to break it."""

import pytest
from messages.plugins import LOSS_DOES_NOT_DEPEND

from tersely.testing import LossContract, check_loss

SCALAR = "The loss is a finite 0-dim float tensor"
GRADIENT = "The student gets a finite gradient that is not zero everywhere"
UNTOUCHED = "Student and teacher tensors are not modified"
SAME = "The same pair gives the same loss and leaves the global random state unchanged"


@pytest.mark.parametrize(
    ("sample", "check", "message"),
    [
        ("unreduced", SCALAR, "shape (4, 10): the loss has shape (4, 10), expected a 0-dim tensor"),
        ("whole", SCALAR, "shape (4, 10): the loss has dtype torch.int64, expected floats"),
        ("infinite", SCALAR, "shape (4, 10): the loss is inf"),
        ("plain", SCALAR, "it returned float, expected a tensor"),
        ("detached", GRADIENT, f"shape (4, 10): {LOSS_DOES_NOT_DEPEND} the student"),
        ("constant", GRADIENT, "shape (4, 10): the gradient is zero"),
        ("steep", GRADIENT, "shape (4, 10): the gradient is not finite"),
        ("writing", UNTOUCHED, "shape (4, 10): the student tensor was modified"),
        ("writing_teacher", UNTOUCHED, "shape (4, 10): the teacher tensor was modified"),
        (
            "random",
            SAME,
            "the global random state of torch was changed; use a generator of your own",
        ),
    ],
)
def test_a_broken_loss_is_found(register, failures, sample, check, message):
    assert failures(LossContract(register("loss", sample), {}))[check] == message


def test_a_loss_with_state_of_its_own_keeps_its_contract(register):
    check_loss(register("loss", "Bank", implementation="contract_samples.mutants:Bank"))


def test_a_named_part_that_is_no_option_is_found(register, failures):
    name = register("loss", "comparing_samples", batch_options=("labels",))

    found = failures(LossContract(name, {}))

    assert (
        found["Options that name model inputs or parts of the batch exist in the options schema"]
        == "batch_options has ['labels'], which are not properties of the options schema"
    )


def test_a_loss_may_compare_samples_in_ways_that_say_nothing_of_two(register):
    check_loss(register("loss", "comparing_samples"))


def test_a_loss_with_labels_may_be_lower_for_another_student_than_the_teacher(register):
    labels = {"properties": {"labels": {"type": "string"}}, "additionalProperties": False}
    name = register("loss", "mostly_labels", batch_options=("labels",), options=labels)

    check_loss(name, options={"labels": "labels"})
