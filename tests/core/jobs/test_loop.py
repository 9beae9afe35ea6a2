"""The built-in training loop: its steps, done by hand on one weight, and the forms of batches."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tersely.document.schemas.spec import read_schema
from tersely.jobs.training.losses import LOSSES, TaskLoss
from tersely.jobs.training.optimizing import OPTIMIZERS, factor_at

Train = Callable[..., list[float]]


def test_a_step_of_sgd_follows_the_gradient(train: Train) -> None:
    # The loss w^2 has the gradient 2 w: 1 - 0.1 * 2.
    assert train() == pytest.approx([0.8])


def test_every_epoch_goes_over_the_batches_again(train: Train) -> None:
    assert train(epochs=2) == pytest.approx([0.8 * 0.8])
    assert train(data="two", epochs=2) == pytest.approx([0.8**4])


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        # 2; then 0.9 * 2 + 1.6.
        ({"sgd": {"momentum": 0.9}}, 1 - 0.2 - 0.34),
        # The gradient is 2 + 0.5, then 1.5 + 0.375.
        ({"sgd": {"weight_decay": 0.5}}, 1 - 0.25 - 0.1875),
    ],
)
def test_an_optimizer_gets_its_options(train: Train, optimizer: Any, expected: float) -> None:
    assert train(epochs=2, optimizer=optimizer) == pytest.approx([expected])


def test_adam_moves_by_the_learning_rate_at_first(train: Train) -> None:
    assert train(optimizer="adam") == pytest.approx([0.9])
    assert train(optimizer={"adam": {"betas": [0.5, 0.5]}}) == pytest.approx([0.9])


def test_adamw_is_the_default_and_decays_by_a_hundredth_of_the_rate(train: Train) -> None:
    assert train(optimizer=None) == pytest.approx([1 - 0.1 * 0.01 - 0.1])


def test_gradients_are_clipped_to_a_norm(train: Train) -> None:
    assert train(clip_norm=1.0) == pytest.approx([0.9])
    assert train(clip_norm=5.0) == pytest.approx([0.8])


@pytest.mark.parametrize("data", ["one", "two"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_learning_rate_falls_from_step_to_step(train: Train, data: str, schedule: str) -> None:
    # Two steps, at 0 and at 1/2: the whole rate and half of it, once in two epochs, once in one.
    weight = train(data=data, epochs=2 if data == "one" else 1, lr_schedule=schedule)

    assert weight == pytest.approx([0.8 - 0.05 * 1.6])


def test_schedules_begin_at_one_and_end_at_zero() -> None:
    assert [factor_at("constant", share) for share in (0, 0.25, 1)] == [1, 1, 1]
    assert [factor_at("linear", share) for share in (0, 0.25, 1)] == [1, 0.75, 0]
    cosine = [factor_at("cosine", share) for share in (0, 0.25, 0.5, 1)]
    assert cosine == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, 0])


def test_the_log_tells_the_mean_loss_of_each_epoch(train: Any) -> None:
    train(data="two", epochs=2)

    # 1 and 0.8^2, then 0.64^2 and 0.512^2.
    assert "  epoch 1 of 2: loss 0.8200\n  epoch 2 of 2: loss 0.3359\n" in train.said


@pytest.mark.parametrize("data", ["tupled", "named"])
def test_inputs_may_be_arguments_or_keywords(train: Train, data: str) -> None:
    # The output is 2 w, its square has the gradient 8 w.
    assert train(data=data) == pytest.approx([1 - 0.8])


def test_batches_may_come_from_a_generator_function(train: Train) -> None:
    assert train(data="generated", epochs=2) == pytest.approx([0.64])


def test_a_loss_may_be_a_function_of_ones_own(train: Train) -> None:
    assert train(loss="loops:difference") == pytest.approx([0.9])


def test_a_model_may_compute_its_own_loss_from_the_whole_batch(train: Train) -> None:
    assert train(data="whole", build="Costed", loss="output") == pytest.approx([0.8])


def test_the_model_is_in_training_mode_also_after_an_evaluation(
    train: Train, workshop: Any
) -> None:
    workshop.code(
        "modes.py",
        """
        from loops import Weight


        class Modes(Weight):
            def forward(self, inputs):
                assert self.training
                return super().forward(inputs)


        def evaluate(model):
            model.eval()
            return 0
        """,
    )
    data = {"train": "loops:one", "evaluate": "modes:evaluate"}

    assert train(job={"model": "modes:Modes", "data": data}) == pytest.approx([0.8])


def test_parameters_that_need_no_gradient_stay(train: Train, workshop: Any) -> None:
    workshop.code(
        "half.py",
        """
        from loops import Weight


        def build():
            model = Weight()
            model.other = Weight(5.0).requires_grad_(False)
            return model
        """,
    )

    assert train(job={"model": "half:build"}, optimizer="adamw") == pytest.approx([0.899])


@pytest.mark.parametrize(
    ("name", "output", "targets", "expected"),
    [
        ("mse", [3.0, 1.0], [0.0, 0.0], 5.0),
        ("l1", [3.0, 1.0], [0.0, 0.0], 2.0),
        # Below a difference of one half of the square, above it the difference less a half.
        ("smooth_l1", [3.0, 1.0], [0.0, 0.0], 1.5),
        ("bce_with_logits", [0.0, 0.0], [1.0, 0.0], math.log(2)),
        ("cross_entropy", [[0.0, 0.0]], [1], math.log(2)),
        ("nll", [[-0.5, -3.0]], [0], 0.5),
    ],
)
def test_the_losses_are_means(name: str, output: Any, targets: Any, expected: float) -> None:
    loss = TaskLoss(name=name).of(torch.tensor(output), torch.tensor(targets))

    assert loss.item() == pytest.approx(expected)


def test_an_output_that_is_a_mapping_has_its_loss_under_that_key() -> None:
    assert TaskLoss(name="output").of({"loss": torch.tensor(2.0)}, None) == 2


def _defined(name: str) -> Any:
    return read_schema("job")["$defs"][name]["anyOf"]


def test_every_loss_of_the_schema_is_there() -> None:
    assert [*LOSSES, "output", "none"] == _defined("loop_loss")[0]["enum"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_option_of_the_schema_is_one_of_pytorch(name: str) -> None:
    import inspect

    assert list(OPTIMIZERS) == _defined("loop_optimizer")[0]["enum"]
    named = _defined("loop_optimizer")[1]["properties"][name]
    if "$ref" in named:
        named = read_schema("job")["$defs"][named["$ref"].rpartition("/")[2]]
    known = set(inspect.signature(OPTIMIZERS[name]).parameters)
    assert set(named["properties"]) <= known - {"params", "lr"}
