"""Calibration batches that have labels: as a job takes them off, and what an error says of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import tersely
from tersely.errors import CalibrationError, ConfigError
from tersely.jobs.calibrating import WithoutLabels
from tersely.jobs.progress.displays import length_of

RECIPE = {
    "pruning": {
        "algorithm": "toy",
        "config_list": [{"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.5}],
    }
}

pytestmark = pytest.mark.usefixtures("toy_pruners")


def inputs_of(*batches: Any) -> list[Any]:
    return list(WithoutLabels(batches, None))


def test_the_last_value_is_left_out() -> None:
    assert inputs_of((1, 2), [1, 2], (1, 2, 3)) == [1, 1, (1, 2)]


def test_the_key_labels_is_left_out() -> None:
    assert inputs_of({"inputs": 1, "labels": 2}) == [{"inputs": 1}]


@pytest.mark.parametrize(
    ("batch", "kind"), [((1,), "a tuple"), ({"inputs": 1}, "a mapping"), (1, "a int")]
)
def test_a_batch_without_labels_is_a_mistake_of_the_job(batch: Any, kind: str) -> None:
    with pytest.raises(ConfigError) as caught:
        inputs_of(batch)

    (problem,) = caught.value.problems
    assert str(problem).startswith(
        f"data.labels: a batch of data.calibration is {kind} without labels (return "
    )


def test_batches_keep_their_length_where_they_know_it() -> None:
    assert length_of(WithoutLabels([1, 2, 3], None)) == 3
    assert length_of(WithoutLabels(iter([1, 2]), None)) is None


def test_a_job_calibrates_without_the_labels(workshop: Any, run: Callable[..., str]) -> None:
    workshop.code(
        "toy_pairs.py",
        "import torch\n\ndef pairs():\n    return [(torch.ones(2, 4), torch.zeros(2))] * 3\n",
    )
    workshop.write(data={"calibration": "toy_pairs:pairs", "labels": True}, train=None)

    assert "  3 batches observed\n" in run()


def test_a_job_that_calls_the_model_with_labels_says_what_to_write(
    workshop: Any, run: Callable[..., str]
) -> None:
    workshop.code(
        "toy_pairs.py",
        "import torch\n\ndef pairs():\n    return [(torch.ones(2, 4), torch.zeros(2))] * 3\n",
    )
    workshop.write(data={"calibration": "toy_pairs:pairs"}, train=None)

    with pytest.raises(CalibrationError, match="write 'labels: true' under 'data' in a job"):
        run()


@pytest.mark.parametrize(
    ("batch", "advice"),
    [
        ((torch.ones(2, 4), torch.zeros(2)), "model(batch[0])"),
        ([torch.ones(2, 4), torch.zeros(2)], "model(batch[0])"),
        ({"input": torch.ones(2, 4), "labels": torch.zeros(2)}, "batch['inputs']"),
    ],
)
def test_labels_among_the_inputs_are_an_error_that_shows_forward(batch: Any, advice: str) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 2))

    with pytest.raises(CalibrationError) as caught:
        tersely.attach(model, RECIPE).calibrate([batch])

    assert "forward=lambda model, batch: " in str(caught.value)
    assert advice in str(caught.value)
    assert "and the model's forward takes (self, input" in str(caught.value)


def test_a_type_error_inside_the_model_is_left_as_it_is() -> None:
    class Broken(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            raise TypeError("mine")

    with pytest.raises(TypeError, match=r"^mine$"):
        tersely.attach(torch.nn.Sequential(Broken(4, 2)), RECIPE).calibrate([torch.ones(2, 4)])
