"""A small job in a folder of its own: a linear model, a loop, and a diary of what was called."""

import io
import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

CODE = """
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).parent


def note(what):
    with (HERE / "diary.txt").open("a") as stream:
        stream.write(what + "\\n")


def build(width=4):
    note("build")
    model = nn.Sequential(nn.Linear(width, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.arange(1.0, parameter.numel() + 1).reshape(parameter.shape))
    return model


def batches():
    note("batches")
    return [torch.ones(2, 4), torch.ones(2, 4)]


def evaluate(model):
    note("evaluate")
    with torch.no_grad():
        return model(torch.ones(1, 4)).sum()


def finetune(model, session):
    note("train")
    if (HERE / "fail").exists():
        raise RuntimeError("the disk is full")
    if (HERE / "interrupt").exists():
        raise KeyboardInterrupt
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 4)).pow(2).mean().backward()
        optimizer.step()
        session.step()
"""

JOB: dict[str, Any] = {
    "model": "toy_parts:build",
    "data": {"evaluate": "toy_parts:evaluate"},
    "train": "toy_parts:finetune",
    "recipe": {
        "pruning": {
            "algorithm": "toy",
            "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5}],
        }
    },
    "output": "runs/first",
    "seed": 7,
}


class Workshop:
    """The job's folder, and what a test wants to know of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "runs" / "first"
        self.partial = folder / "runs" / "first.partial"
        self.previous = folder / "runs" / "first.previous"
        self.file = folder / "job.json"
        (folder / "toy_parts.py").write_text(CODE, encoding="utf-8")
        self.write()

    def write(self, **changes: Any) -> None:
        self.file.write_text(json.dumps({**JOB, **changes}), encoding="utf-8")

    def code(self, name: str, source: str) -> None:
        (self.folder / name).write_text(textwrap.dedent(source), encoding="utf-8")

    def diary(self) -> list[str]:
        """What was called since the last look."""
        place = self.folder / "diary.txt"
        lines = place.read_text().split() if place.exists() else []
        place.unlink(missing_ok=True)
        return lines


@pytest.fixture
def workshop(tmp_path: Path, toy_pruners: None) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture
def run(workshop: Workshop) -> Callable[..., str]:
    """Run the job and return everything it said, also after an error."""
    from tersely.jobs.runner import run_job

    def run(**options: Any) -> str:
        stream = io.StringIO()
        run.said = stream  # type: ignore[attr-defined]  # for tests of runs that fail
        run_job(workshop.file, console=Console(file=stream, width=200), **options)
        return stream.getvalue()

    return run


LOOP_CODE = """
import random
from pathlib import Path

import numpy
import torch
from torch import nn

HERE = Path(__file__).parent
ONE, ZERO = torch.ones(1, 1), torch.zeros(1, 1)


class Weight(nn.Module):
    def __init__(self, first=1.0, outputs=1):
        super().__init__()
        self.scale = nn.Linear(1, outputs, bias=False)
        nn.init.constant_(self.scale.weight, first)

    def forward(self, inputs, factor=1.0):
        return self.scale(inputs) * factor


class Costed(Weight):
    def forward(self, inputs, labels):
        class Output:
            loss = (self.scale(inputs) - labels).square().mean()

        return Output()


class Double(Weight):
    def __init__(self):
        super().__init__()
        self.other = nn.Linear(1, 1, bias=False)


class Noisy(Weight):
    def forward(self, inputs):
        return self.scale(nn.functional.dropout(inputs, 0.5, self.training))


def one():
    return [(ONE, ZERO)]


def two():
    return one() * 2


def tupled():
    return [((ONE, 2.0), ZERO)]


def named():
    return [({"inputs": ONE, "factor": 2.0}, ZERO)]


def whole():
    return [{"inputs": ONE, "labels": ZERO}]


def generated():
    yield from one()


def difference(output, targets):
    return (output - targets).sum()


def drawn():
    with (HERE / "diary.txt").open("a") as diary:
        diary.write("epoch ")
    for number in range(3):
        # The user interrupts in the middle of the epoch whose turn it is.
        stop = HERE / "stop"
        if number == 1 and stop.exists():
            turns = int(stop.read_text()) - 1
            stop.write_text(str(turns))
            if not turns:
                stop.unlink()
                raise KeyboardInterrupt
        value = torch.rand(4, 1) + random.random() + float(numpy.random.rand())
        yield value, torch.zeros(4, 1)
"""


@pytest.fixture
def train(workshop: Workshop, run: Callable[..., str]) -> Callable[..., list[float]]:
    """Train ``Weight`` without pruning anything, and return its weight as a list.

    Keywords are those of ``loop``, or, as ``data``, ``build``, ``job`` and ``options``, the
    batches, the model, other keys of the job, and options of the run.
    """
    from safetensors.torch import load_file

    workshop.code("loops.py", LOOP_CODE)

    def train(
        data: str = "one", build: str = "Weight", job: Any = (), options: Any = (), **loop: Any
    ) -> list[float]:
        recipe = {
            "pruning": {
                "algorithm": "toy",
                "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.0}],
            }
        }
        workshop.write(
            **{
                "model": f"loops:{build}",
                "recipe": recipe,
                "data": {"train": data if ":" in data else f"loops:{data}"},
                "train": None,
                "loop": {"epochs": 1, "optimizer": "sgd", "lr": 0.1, "loss": "mse", **loop},
                **dict(job),
            }
        )
        train.said = run(**dict(options))  # type: ignore[attr-defined]  # for tests of what is said
        weights = load_file(workshop.output / "model.safetensors")
        return weights["scale.weight"].flatten().tolist()

    return train


SEARCHED = """
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).parent


def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)
    )


def batches():
    return [torch.randn(8, 6, generator=torch.Generator().manual_seed(one)) for one in range(2)]


def evaluate(model):
    stop = HERE / "stop"
    if stop.exists():
        turns = int(stop.read_text()) - 1
        stop.write_text(str(turns))
        if not turns:
            stop.unlink()
            raise KeyboardInterrupt
    with torch.no_grad():
        wanted, found = build()(batches()[0]), model(batches()[0])
    return {"likeness": float(1 - (wanted - found).norm() / wanted.norm())}
"""


@pytest.fixture
def searched_job(workshop: Any) -> Any:
    """A job of three layers to search, whose evaluation can be told to interrupt."""
    workshop.code("searched.py", SEARCHED)
    entry = {"op_names": ["0", "2", "4"], "sparse_ratio": 0.5}
    workshop.write(
        model="searched:build",
        data={"calibration": "searched:batches", "evaluate": "searched:evaluate"},
        train=None,
        recipe={"pruning": {"algorithm": "toy_rows", "config_list": [entry]}},
    )
    return workshop


TOY_ROWS = """
import sys
from types import ModuleType

import tersely


class Magnitude:
    def importance(self, target):
        return target.tensor.abs()


class Face:
    @tersely.hookimpl
    def tersely_pruners(self):
        return [
            tersely.PrunerInfo(
                name="toy_rows",
                implementation="tersely_toy:Magnitude",
                default_granularity="output_channel",
            )
        ]


module = ModuleType("tersely_toy")
module.Magnitude = Magnitude
sys.modules["tersely_toy"] = module
tersely.registry().register(Face(), name="tersely-toy")
"""


@pytest.fixture
def toy_rows_code() -> str:
    """The code of a module that provides the pruner ``toy_rows``, for processes of their own."""
    return TOY_ROWS
