"""What the measured tables share: training by a seed, accuracy in percent, rows of a table."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TypeVar

import attrs
import torch
from data import evaluate, training_batches
from model import Digits
from torch import Tensor, nn

import tersely

Batch = Sequence[Tensor]
Found = TypeVar("Found")


@attrs.frozen
class Row:
    """One seed of a table.

    Attributes:
        seed: of the first weights and of the order of the batches.
        dense: accuracy of the dense network on the test images, in percent.
        compressed: accuracy of the compressed network on the same images, in percent.
        share: how much was taken away, in percent.
    """

    seed: int
    dense: float
    compressed: float
    share: float

    @property
    def lost(self) -> float:
        """Points of accuracy that were lost; negative where the compressed network is better."""
        return self.dense - self.compressed


def dense_network(*, seed: int, epochs: int) -> nn.Module:
    """Return a network that was trained from the start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Digits()
        train(model, seed=seed, epochs=epochs, learning_rate=2e-3)
    return model


def train(
    model: nn.Module,
    *,
    seed: int,
    epochs: int,
    learning_rate: float,
    session: tersely.Session | None = None,
) -> None:
    """Train a model, with the losses and the steps of a session if there is one.

    Args:
        model: the model, dense or with a session attached.
        seed: of the order of the batches.
        epochs: how often every training image is seen.
        learning_rate: of Adam, at the start; it falls to zero along a cosine.
        session: the session that is attached to the model.
    """
    batches = [training_batches(seed=1000 * seed + epoch) for epoch in range(epochs)]
    steps = sum(map(len, batches))
    take_steps(
        model,
        chain.from_iterable(batches),
        steps=steps,
        learning_rate=learning_rate,
        session=session,
    )


def take_steps(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    steps: int,
    learning_rate: float,
    session: tersely.Session | None = None,
) -> None:
    """Train a model on batches, with the losses, the teacher and the steps of a session.

    Args:
        model: the model, dense or with a session attached.
        batches: images and labels.
        steps: how many batches these are.
        learning_rate: of Adam, at the start; it falls to zero along a cosine.
        session: the session that is attached to the model.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for images, labels in batches:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        if session is not None:
            if session.teacher is not None:
                session.teacher_forward(images)
            loss = session.total_loss(loss)
        loss.backward()
        optimizer.step()
        decay.step()
        if session is not None:
            session.step()


def accuracy(model: nn.Module) -> float:
    """Return the share of the test images that are read rightly, in percent."""
    return 100 * evaluate(model)["accuracy"]


def for_each_seed(measure: Callable[..., Found], *, description: str | None) -> list[Found]:
    """Measure as many seeds as the command line asks for, and return what was found.

    Args:
        measure: measures one seed; called with ``seed``, ``epochs`` and ``fine_tuning``.
        description: what ``--help`` says first.
    """
    torch.set_num_threads(1)  # images of 8 x 8 are too small to be worth a second one
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds (5)")
    parser.add_argument("--epochs", type=int, default=12, help="of the dense network (12)")
    parser.add_argument("--fine-tuning", type=int, default=30, help="epochs after that (30)")
    given = parser.parse_args()
    return [
        measure(seed=seed, epochs=given.epochs, fine_tuning=given.fine_tuning)
        for seed in range(given.seeds)
    ]


def markdown(rows: Sequence[Row], *, compressed: str, share: str) -> str:
    """Return a table with a row for each seed and their means.

    Args:
        rows: the rows.
        compressed: heading of the compressed accuracy.
        share: heading of the share that was taken away.
    """
    means = (
        sum(row.dense for row in rows) / len(rows),
        sum(row.compressed for row in rows) / len(rows),
        sum(row.share for row in rows) / len(rows),
    )
    lines = [f"| seed | dense | {compressed} | points lost | {share} |", "| --- |" + " ---: |" * 4]
    for name, row in [*((str(row.seed), row) for row in rows), ("mean", Row(-1, *means))]:
        lines.append(
            f"| {name} | {row.dense:.2f} % | {row.compressed:.2f} % | {row.lost:.2f} "
            f"| {row.share:.2f} % |"
        )
    return "\n".join(lines)
