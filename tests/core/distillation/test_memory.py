"""What taps keep: nothing after a loss, whatever became of it, and one batch at most before it."""

import gc

import pytest
import torch
from messages.planning import NOT_IN_TEACHER
from messages.sessions import NOT_SEEN_OF_TEACHER
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

import tersely
from tersely.instrument.tapping import Tap


class Watched:
    """Weak references to what the first layers of both models returned and to the taps' copies."""

    def __init__(self, *models):
        self.storages = []
        for model in models:
            model[0].register_forward_hook(self._add)

    def _add(self, module, args, output):
        self.storages.append(StorageWeakRef(output.untyped_storage()))

    def add_copies(self):
        for tap in [one for one in gc.get_objects() if type(one) is Tap]:
            if tap.value is not None and tap.is_copying:
                self.storages.append(StorageWeakRef(tap.value.untyped_storage()))

    @property
    def alive(self):
        gc.collect()
        return len({storage.cdata for storage in self.storages if not storage.expired()})


@pytest.fixture(autouse=True)
def _only_own_garbage():
    """Let collections pass over the million objects that there are before a test."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def watched(student, teacher):
    return Watched(student, teacher)


def batch(rows=1):
    return torch.ones(rows, 2)


def run(session, *, watched=None, teacher_batch=None):
    session.model(batch())
    session.teacher_forward(batch() if teacher_batch is None else teacher_batch)
    if watched is not None:
        watched.add_copies()


def test_until_the_loss_taps_hold_one_batch_of_each_side(distilled, watched):
    session = distilled()

    run(session, watched=watched)

    assert watched.alive == 2


def test_after_the_loss_and_its_backward_nothing_of_the_step_is_left(distilled, watched):
    session = distilled()
    run(session, watched=watched)

    session.loss().backward()

    assert watched.alive == 0


def test_the_graph_hangs_on_the_loss_alone(distilled, watched):
    session = distilled(op_names=["1"])
    run(session, watched=watched)

    loss = session.loss()
    # What the student's layer 0 put out is an input of layer 1, which its backward needs.
    assert watched.alive == 1
    del loss

    assert watched.alive == 0


def test_the_links_that_do_not_count_are_freed_as_well(distilled, watched):
    session = distilled(link=["0", "1"])
    run(session, watched=watched)

    session.loss().backward()

    assert watched.alive == 0


@pytest.mark.parametrize(
    ("keys", "teacher_batch", "error"),
    [
        ({}, batch(3), tersely.SessionError),  # shapes that do not go together
        ({"apply_method": "toy_fails"}, None, tersely.PluginError),
        ({"apply_method": "toy_broken"}, None, tersely.PluginError),
        ({"op_names": ["0", "unseen"]}, None, tersely.SessionError),
    ],
)
def test_a_loss_that_fails_frees_what_it_was_given(
    keys, teacher_batch, error, distilled, student, teacher, watched
):
    for model in (student, teacher):
        model[0].unseen = nn.Linear(2, 2)
    if "op_names" in keys:
        keys = {"op_names": ["0", "0.unseen"]}
    session = distilled(**keys)
    run(session, watched=watched, teacher_batch=teacher_batch)

    with pytest.raises(error):
        session.loss()

    assert watched.alive == 0


def test_a_parameter_that_cannot_be_read_frees_the_activations(
    toy_losses, student, watched, teacher
):
    keys = {"apply_method": "toy_square", "target_names": ["_output_", "weight"], "link": "act"}
    plan = tersely.plan(student, {"distillation": {"config_list": [{"op_names": ["0"], **keys}]}})
    teacher.act = nn.Identity()
    session = tersely.attach(student, plan, teacher=teacher)
    run(session, watched=watched)

    with pytest.raises(tersely.SessionError, match=NOT_IN_TEACHER):
        session.loss()

    assert watched.alive == 0


def test_validation_keeps_nothing(distilled, student, watched):
    distilled()
    student.eval()

    with torch.no_grad():
        for _ in range(3):
            student(batch())

    assert watched.alive == 0


@pytest.mark.parametrize("training", [True, False])
def test_forwards_without_a_loss_keep_the_last_batch_and_no_other(
    training, distilled, student, watched
):
    session = distilled()
    student.train(training)

    for _ in range(5):
        run(session, watched=watched)

    assert len(watched.storages) >= 10
    assert watched.alive == 2


def test_validation_between_a_forward_and_its_loss_keeps_the_batch_of_the_forward(
    distilled, student, watched
):
    session = distilled()
    run(session, watched=watched)

    with torch.no_grad():
        student(10 * batch())
    assert watched.alive == 2

    assert session.loss().item() == 16  # as without it: (2 - 6)^2


def test_a_forward_that_fails_is_not_kept_for_longer_than_the_next_one(distilled, student, watched):
    session = distilled()

    def fail(module, args):
        raise RuntimeError("out of memory")

    hook = student[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        student(batch())
    hook.remove()
    run(session, watched=watched)
    session.loss().backward()

    assert watched.alive == 0


@pytest.mark.parametrize("end", ["detach", "finalize"])
def test_the_end_of_a_session_frees_what_no_loss_was_asked_for(end, distilled, watched):
    session = distilled()
    run(session, watched=watched)

    getattr(session, end)()

    assert watched.alive == 0


def test_a_cache_that_fails_midway_frees_the_teacher_s_values(distilled, watched, tmp_path):
    session = distilled(op_names=["0", "1"])

    def half(teacher, inputs):
        teacher[0](inputs)

    with pytest.raises(tersely.SessionError, match=NOT_SEEN_OF_TEACHER):
        session.cache_teacher([batch()], tmp_path, forward=half)

    assert watched.alive == 0
