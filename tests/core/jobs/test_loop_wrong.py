"""What the built-in loop says when the user's callables do not give what it needs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from messages.plugins import LOSS_DOES_NOT_DEPEND
from messages.sessions import END_SOONER

from tersely.errors import ConfigError, TrainingError
from tersely.jobs.training.losses import TaskLoss

Train = Callable[..., list[float]]

WRONG = """
import torch
from loops import ONE, ZERO, Weight

ITERATOR = iter([(ONE, ZERO)])
LOADER = [(ONE, ZERO)]


def again():
    return ITERATOR


def empty():
    return []


def nothing():
    pass


def triples():
    return [(ONE, ONE, ZERO)]


def infinite():
    return [(ONE, ZERO), (float("inf") * ONE, ZERO)]


def extra():
    return [((ONE, 1.0, 2.0), ZERO)]


def detached(output, targets):
    return output.detach().sum()


def alone(output):
    return output.sum()


def frozen():
    return Weight().requires_grad_(False)
"""


@pytest.fixture
def failing(train: Train, workshop: Any) -> Callable[..., str]:
    """Train with something wrong, and return the one problem as it is told."""
    workshop.code("wrong.py", WRONG)

    def failing(**options: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            train(**options)
        (problem,) = caught.value.problems
        assert str(caught.value).startswith(f"{workshop.file} has 1 problem:\n")
        return str(problem)

    return failing


def test_fewer_steps_than_the_last_stage_waits_for(failing: Callable[..., str]) -> None:
    first, last = (
        {"algorithm": "toy", "config_list": [{"op_names": [name], "sparse_ratio": 0.0}]}
        for name in ("scale", "other")
    )
    recipe = {"stages": [{"pruning": first, "until": 5}, {"pruning": last}]}
    assert failing(data="two", epochs=2, build="Double", job={"recipe": recipe}) == (
        "loop.epochs: the loop ends at step 4, and stages[1].pruning begins at step 5 (train "
        f"for more epochs, {END_SOONER})"
    )


def test_no_batch_at_all(failing: Callable[..., str]) -> None:
    assert failing(data="wrong:empty") == (
        "data.train: returned no batch for epoch 1 (return a list, a DataLoader or a generator "
        "with at least one batch)"
    )


def test_an_iterator_that_is_used_up_after_the_first_epoch(
    failing: Callable[..., str], run: Any
) -> None:
    assert failing(data="wrong:again", epochs=2) == (
        "data.train: returned no batch for epoch 2 (it is called once for each epoch, and must "
        "return all batches each time)"
    )
    assert "finished: compress, epoch 1; continue with" in run.said.getvalue()


def test_something_else_than_batches(failing: Callable[..., str]) -> None:
    assert failing(data="wrong:nothing") == (
        "data.train: returned nothing, expected an iterable of batches"
    )


def test_a_loader_where_a_callable_belongs(failing: Callable[..., str], workshop: Any) -> None:
    assert failing(data="wrong:LOADER") == (
        "data.train: 'wrong:LOADER' is a list, expected a callable"
    )
    assert not workshop.partial.exists()


def test_a_batch_that_is_no_pair(failing: Callable[..., str]) -> None:
    assert failing(data="wrong:triples") == (
        "data.train: gave the batch a tuple of 3, expected a pair (inputs, targets) for the loss "
        "mse (for a model with several inputs write ((first, second), targets))"
    )


def test_inputs_that_the_model_does_not_take(failing: Callable[..., str]) -> None:
    assert failing(data="wrong:extra") == (
        "data.train: gave the model a tuple of 3, but its forward takes (self, inputs, "
        "factor=1.0): too many positional arguments (a list or tuple is spread over its arguments, "
        "a mapping over its keywords)"
    )


def test_an_error_inside_of_the_model_is_left_alone(train: Train, workshop: Any) -> None:
    workshop.code(
        "inside.py",
        """
        from loops import Weight


        class Inside(Weight):
            def forward(self, inputs):
                raise TypeError("mine")
        """,
    )

    with pytest.raises(TypeError, match=r"^mine$"):
        train(job={"model": "inside:Inside"})


def test_a_loss_without_a_gradient(failing: Callable[..., str]) -> None:
    assert failing(loss="wrong:detached") == (
        f"loop.loss: {LOSS_DOES_NOT_DEPEND} the parameters of the model (return a tensor that "
        "is computed from the output, without .item() or .detach())"
    )


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("wrong:alnoe", "'wrong' has no attribute 'alnoe' (did you mean 'alone'?)"),
        (
            "wrong:alone",
            "'wrong:alone' takes (output), but the job calls it with (output, targets): too many "
            "positional arguments",
        ),
        (
            "torch.nn:MSELoss",
            "'torch.nn:MSELoss' is a class, expected a function of output and targets (name a "
            "function, or a variable that holds an instance)",
        ),
    ],
)
def test_a_reference_to_a_loss_is_checked_before_anything_runs(
    failing: Callable[..., str], workshop: Any, loss: str, message: str
) -> None:
    assert failing(loss=loss) == f"loop.loss: {message}"
    assert not workshop.partial.exists()


def test_options_that_pytorch_refuses_are_found_before_anything_runs(
    failing: Callable[..., str], workshop: Any
) -> None:
    assert failing(optimizer={"sgd": {"nesterov": True}}) == (
        "loop.optimizer: PyTorch refuses these options of sgd: Nesterov momentum requires a "
        "momentum and zero dampening"
    )
    assert not workshop.partial.exists()


def test_a_schedule_without_a_number_of_batches(failing: Callable[..., str]) -> None:
    assert failing(data="generated", lr_schedule="cosine") == (
        "loop.lr_schedule: cosine needs to know how many batches an epoch has, and data.train "
        "returned a generator, which does not tell (return a list or a DataLoader, or write "
        "lr_schedule: constant)"
    )


def test_a_model_without_a_parameter_to_train(failing: Callable[..., str]) -> None:
    assert failing(job={"model": "wrong:frozen"}) == (
        "model: none of its parameters requires a gradient, so none can be trained"
    )


def test_a_loss_that_is_not_finite_stops_the_loop(train: Train, workshop: Any) -> None:
    workshop.code("wrong.py", WRONG)

    with pytest.raises(TrainingError) as caught:
        train(data="wrong:infinite")

    assert str(caught.value) == (
        "the loss of batch 2 of epoch 1 is inf (the task loss is inf); lower loop.lr, set "
        "loop.clip_norm, or look for values in the data that are not finite"
    )
    assert isinstance(caught.value, RuntimeError)


def _problem(act: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        act()
    return str(caught.value.problems[0])


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        (
            torch.ones(2, 4),
            "a float32 tensor of shape [2, 4], expected a pair (inputs, targets) for the loss mse "
            "(give one pair for each batch, as a DataLoader over inputs and targets does)",
        ),
        (
            {"ids": 1, "labels": 2},
            "a mapping with ids, labels, expected a pair (inputs, targets) for the loss mse (with "
            "loss: output the model gets the whole mapping, and returns its own loss)",
        ),
        (
            "ab",
            "a str, expected a pair (inputs, targets) for the loss mse (give one pair for each "
            "batch, as a DataLoader over inputs and targets does)",
        ),
    ],
)
def test_other_batches_than_pairs(batch: Any, found: str) -> None:
    assert _problem(lambda: TaskLoss(name="mse").split(batch)) == (
        f"data.train: gave the batch {found}"
    )


@pytest.mark.parametrize(
    ("name", "output", "targets", "message"),
    [
        (
            "mse",
            torch.ones(2, 1),
            torch.ones(2),
            "data.train: mse got an output, a float32 tensor of shape [2, 1], and targets, a "
            "float32 tensor of shape [2], expected targets of the output's shape",
        ),
        (
            "cross_entropy",
            torch.ones(1, 2),
            torch.tensor([2]),
            "data.train: cross_entropy got an output, a float32 tensor of shape [1, 2], and "
            "targets, an int64 tensor of shape [1]: Target 2 is out of bounds.",
        ),
        (
            "l1",
            torch.ones(2),
            [0.0, 0.0],
            "data.train: l1 got an output, a float32 tensor of shape [2], and targets, a list of "
            "2, expected a tensor",
        ),
        (
            "nll",
            {"logits": 1},
            torch.ones(1),
            "loop.loss: the model returned a mapping with logits, and nll takes a tensor (write "
            "loss: output when it computes its own, or loss: 'module:callable')",
        ),
        (
            "output",
            torch.ones(2),
            None,
            "loop.loss: the model returned a float32 tensor of shape [2], which has no loss (models "
            "of Transformers compute one when the batch has labels)",
        ),
    ],
)
def test_outputs_that_do_not_fit_the_loss(
    name: str, output: Any, targets: Any, message: str
) -> None:
    assert _problem(lambda: TaskLoss(name=name).of(output, targets)) == message


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (torch.ones(2), "a float32 tensor of shape [2], expected a 0-dim tensor (take its mean())"),
        (1.0, "a float, expected a 0-dim tensor"),
        (None, "nothing, expected a 0-dim tensor"),
    ],
)
def test_a_loss_of_ones_own_is_a_single_number(value: Any, found: str) -> None:
    loss = TaskLoss(name="my:loss", function=lambda output, targets: value)

    assert _problem(lambda: loss.of(None, None)) == f"loop.loss: the loss of 'my:loss' is {found}"
