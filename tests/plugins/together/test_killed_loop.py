"""A job that prunes, quantizes and distils in the built-in loop, killed and resumed as a process."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from messages.files import goes_on_after

CODE = """
import os
import random
import signal
from pathlib import Path

import numpy
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

HERE = Path(__file__).parent
EPOCHS = iter(range(1, 100))


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = nn.Linear(6, width)
        self.norm = nn.BatchNorm1d(width)
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, 3)

    def forward(self, inputs):
        hidden = self.norm(self.first(inputs)).relu()
        return self.last(nn.functional.dropout(self.second(hidden).relu(), 0.2, self.training))


def build():
    # A job without a seed leaves the generators to the user, and so to this line.
    torch.manual_seed(0), random.seed(0), numpy.random.seed(0)
    return Net(8)


def teacher():
    torch.manual_seed(1)
    return Net(12)


def data():
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(48, 6, generator=generator)
    return TensorDataset(inputs, inputs[:, :3].argmax(1))


def calibration():
    return [data().tensors[0]]


class Batches:
    def __init__(self):
        self.loader = DataLoader(data(), batch_size=8, shuffle=True)

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        epoch, order = next(EPOCHS), HERE / "kill"
        kill = order.read_text().split() if order.exists() else ()
        for number, (inputs, labels) in enumerate(self.loader):
            if kill == [str(epoch), str(number)]:
                order.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            noise = torch.tensor(numpy.random.randn(*inputs.shape), dtype=torch.float32)
            yield inputs + random.random() * noise, labels
"""
PRUNING = {
    "algorithm": "level",
    # 4 epochs of 6 steps: masks change in each of the first three.
    "schedule": {"name": "agp", "begin": 2, "every": 3, "times": 4},
    "config_list": [{"op_types": ["Linear"], "exclude_op_names": ["last"], "sparse_ratio": 0.5}],
}
QUANTIZATION = {
    "algorithm": "qat",
    "config_list": [
        {
            "op_types": ["Linear"],
            "target_names": ["_input_", "weight", "_output_"],
            "quant_dtype": "int8",
        }
    ],
}
RECIPE = {
    # The second period begins in the middle of the third epoch, with the batches of calibration.
    "stages": [{"pruning": PRUNING, "until": 15}, {"quantization": QUANTIZATION}],
    "distillation": {
        "task_loss_weight": 0.5,
        "config_list": [
            {"op_names": ["last"], "apply_method": {"kl": {"temperature": 2}}},
            {"op_names": ["second"], "projection": "linear", "lambda": 0.1},
        ],
    },
}
LOOP = {
    "epochs": 4,
    "optimizer": {"adamw": {"weight_decay": 0.1, "amsgrad": True}},
    "lr": 0.01,
    "loss": "cross_entropy",
    "lr_schedule": "cosine",
    "clip_norm": 1.0,
}

pytestmark = pytest.mark.slow


class Workplace:
    """A job's folder, and the command that runs it in a process of its own."""

    def __init__(self, folder: Path, seed: int | None, fresh: Any) -> None:
        folder.mkdir()
        self.folder, self.fresh = folder, fresh
        (folder / "parts.py").write_text(CODE)
        data = {"train": "parts:Batches", "calibration": "parts:calibration"}
        job = {
            "model": "parts:build",
            "teacher": "parts:teacher",
            "data": data,
            "loop": LOOP,
            "recipe": RECIPE,
            "output": "out",
            "seed": seed,
        }
        (folder / "job.yaml").write_text(yaml.safe_dump(job))

    def run(self, *options: str) -> "subprocess.CompletedProcess[str]":
        command = ("-m", "tersely.cli.main", "run", "job.yaml", *options)
        return self.fresh.run(*command, cwd=self.folder, env={**os.environ, "COLUMNS": "200"})

    def kill(self, epoch: int, batch: int, *options: str) -> None:
        """Run until the process kills itself with a batch in its hands."""
        (self.folder / "kill").write_text(f"{epoch} {batch}")
        done = self.run(*options)
        assert done.returncode == -signal.SIGKILL, done.stderr

    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "out.partial" / "checkpoint").iterdir())

    def results(self) -> dict[str, bytes]:
        """Every file of the finished model and its session."""
        output = self.folder / "out"
        files = [output / "model.safetensors", *sorted((output / "session").iterdir())]
        return {path.relative_to(output).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def whole_and_killed(
    tmp_path: Path, fresh: Any
) -> Callable[[int | None], tuple[Workplace, Workplace]]:
    """Two folders with the same job, in the first of which it has run."""

    def prepare(seed: int | None) -> tuple[Workplace, Workplace]:
        whole, killed = (Workplace(tmp_path / name, seed, fresh) for name in ("whole", "killed"))
        done = whole.run()
        assert done.returncode == 0, done.stderr
        return whole, killed

    return prepare


def test_a_process_killed_in_epoch_three_goes_on_behind_epoch_two(
    whole_and_killed: Callable[[int | None], tuple[Workplace, Workplace]],
) -> None:
    whole, killed = whole_and_killed(7)
    killed.kill(3, 2)
    assert killed.checkpoints() == ["compress", "epoch-2"]

    done = killed.run("--resume")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(goes_on_after("compress", "epoch 2"))
    assert "epoch 2 of 4" not in done.stdout
    assert killed.results() == whole.results()


def test_a_process_without_a_seed_that_is_killed_twice_ends_alike(
    whole_and_killed: Callable[[int | None], tuple[Workplace, Workplace]],
) -> None:
    whole, killed = whole_and_killed(None)
    killed.kill(1, 5)
    # A resumed process counts its own epochs: its third is the job's third, too.
    killed.kill(3, 1, "--resume")

    done = killed.run("--resume")

    assert done.returncode == 0, done.stderr
    assert killed.results() == whole.results()
