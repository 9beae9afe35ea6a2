"""Jobs that distil in the built-in loop: what the teacher sees, and what the student learns."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from safetensors.torch import load_file

from tersely.errors import ConfigError
from tersely.jobs.runner import run_job

CODE = """
import torch
from torch import nn


class Weight(nn.Module):
    def __init__(self, first):
        super().__init__()
        self.scale = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.scale.weight, first)

    def forward(self, inputs, factor=1.0):
        return self.scale(inputs * factor)


ONE, ZERO = torch.ones(1, 1), torch.zeros(1, 1)


def pairs():
    return [(ONE, ZERO)]


def pairs_of_keywords():
    return [({"inputs": ONE, "factor": 2.0}, ZERO)]


def alone():
    return [ONE]


class Teacher(nn.Module):
    def forward(self, inputs):
        return torch.tensor([[0.0, 0.0, 50.0]]).expand(len(inputs), 3)


class Three(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Parameter(torch.zeros(()))

    def forward(self, inputs):
        row = torch.stack([self.last, self.last * 0, self.last * 0])
        return row.expand(len(inputs), 3)


def labelled():
    return [(ONE, torch.tensor([0]))]
"""

Train = Callable[..., float]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Teach a weight of 1 by one of 3 in one step of 0.1, and return it."""
    (tmp_path / "teaching.py").write_text(CODE)

    def train(batches: str, loss: str, **stage: Any) -> float:
        entry = {"op_names": ["scale"], "apply_method": "mse"}
        job = {
            "model": "teaching:Weight",
            "model_args": {"first": 1.0},
            "teacher": "teaching:Weight",
            "teacher_args": {"first": 3.0},
            "data": {"train": f"teaching:{batches}"},
            "loop": {"epochs": 1, "optimizer": "sgd", "lr": 0.1, "loss": loss},
            "recipe": {"distillation": {"config_list": [entry], **stage}},
            "output": "out",
        }
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
        run_job(tmp_path / "job.yaml", console=Console(file=io.StringIO()))
        return load_file(tmp_path / "out" / "model.safetensors")["scale.weight"].item()

    return train


def test_without_a_task_the_student_learns_from_the_teacher_alone(train: Train) -> None:
    # (w - 3)^2 has the gradient -4 at 1.
    assert train("alone", "none") == pytest.approx(1.4)


def test_the_task_has_its_weight_beside_the_teacher(train: Train) -> None:
    # 0.5 w^2 adds 1 to the gradient.
    assert train("pairs", "mse", task_loss_weight=0.5) == pytest.approx(1.3)


def test_the_teacher_gets_the_same_inputs(train: Train) -> None:
    # Both see 2: (2 w - 6)^2 has the gradient -16, and (2 w)^2 one of 8.
    assert train("pairs_of_keywords", "mse") == pytest.approx(1.8)


def test_a_pair_is_two_arguments_where_there_is_no_task(train: Train) -> None:
    # Inputs of 1 and a factor of 0: nothing to learn.
    assert train("pairs", "none") == pytest.approx(1.0)


def test_a_loss_is_given_the_labels_of_a_batch_by_their_place(tmp_path: Path) -> None:
    (tmp_path / "teaching.py").write_text(CODE)
    options = {"labels": 1, "alpha": 0, "beta": 1, "temperature": 1}
    entry = {"op_names": [""], "apply_method": {"decoupled_kl": options}}
    job = {
        "model": "teaching:Three",
        "teacher": "teaching:Teacher",
        "data": {"train": "teaching:labelled"},
        "loop": {"epochs": 1, "optimizer": "sgd", "lr": 1.0, "loss": "cross_entropy"},
        "recipe": {"distillation": {"config_list": [entry], "task_loss_weight": 0}},
        "output": "out",
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))

    run_job(tmp_path / "job.yaml", console=Console(file=io.StringIO()))

    # Class 0 is the target, and its logit alone is learned: among the others it has no part. The
    # teacher's first class is 2, for which it would have one.
    assert load_file(tmp_path / "out" / "model.safetensors")["last"].item() == 0.0


def test_a_job_whose_losses_are_of_the_student_alone_needs_no_teacher(tmp_path: Path) -> None:
    (tmp_path / "teaching.py").write_text(CODE)
    entry = {"op_names": ["scale"], "apply_method": "activation_regularization"}
    job = {
        "model": "teaching:Weight",
        "model_args": {"first": 1.0},
        "data": {"train": "teaching:alone"},
        "loop": {"epochs": 1, "optimizer": "sgd", "lr": 0.1, "loss": "none"},
        "recipe": {"distillation": {"config_list": [entry]}},
        "output": "out",
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))

    run_job(tmp_path / "job.yaml", console=Console(file=io.StringIO()))

    # w^2 has the gradient 2 at 1.
    found = load_file(tmp_path / "out" / "model.safetensors")["scale.weight"].item()
    assert found == pytest.approx(0.8)


def test_a_recipe_in_its_own_file_is_checked_against_the_loop(tmp_path: Path) -> None:
    recipe = {"distillation": {"config_list": [{"op_names": ["scale"]}]}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "job.yaml").write_text(
        "model: teaching:Weight\n"
        "data: {train: teaching:pairs}\n"
        "recipe: recipe.yaml\n"
        "output: out\n"
        "loop: {epochs: 1, lr: 0.1, loss: mse}\n"
    )

    with pytest.raises(ConfigError) as caught:
        run_job(tmp_path / "job.yaml")

    assert [str(problem) for problem in caught.value.problems] == [
        "3:9: recipe: the loop distils from a teacher, and the job has no 'teacher' (write teacher: "
        "'module:callable', which builds it)"
    ]
