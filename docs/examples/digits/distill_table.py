"""Trains small digits networks with and without a teacher, seed by seed, and prints a table.

From the root of the repository: ``python docs/examples/digits/distill_table.py``. It takes
hardly two minutes of one core.
"""

import argparse
import copy
from collections.abc import Sequence

import attrs
import torch
from data import endless, few, split
from measure import accuracy, dense_network, take_steps
from model import Digits

import tersely

RECIPE = {
    "distillation": {
        "task_loss_weight": 0,  # the student learns from the outputs of the teacher alone
        "config_list": [{"op_names": ["classifier"], "apply_method": {"kl": {"temperature": 4}}}],
    }
}

LEARNING_RATE = 5e-3
"""For both students; the better one of 0.005 and 0.01 for the student without a teacher."""


@attrs.frozen
class Row:
    """One seed of the table; accuracies are those on the test images, in percent.

    Attributes:
        seed: of all first weights, of the images with labels, and of the order of batches.
        teacher: accuracy of the dense network.
        alone: accuracy of the student that learns from labels.
        distilled: accuracy of the student that learns from the teacher.
    """

    seed: int
    teacher: float
    alone: float
    distilled: float

    @property
    def gained(self) -> float:
        """Points of accuracy that the teacher is worth."""
        return self.distilled - self.alone


def measure(
    *, seed: int, epochs: int, steps: int, labelled: int, is_same_images: bool = False
) -> Row:
    """Train a teacher on all labels, and two students with the same first weights.

    Args:
        seed: see `Row`.
        epochs: of the teacher.
        steps: batches of 64 that each student is trained on.
        labelled: how many training images have a label for the students.
        is_same_images: show the distilled student these images and no other.
    """
    teacher = dense_network(seed=seed, epochs=epochs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        alone = Digits(width=4)
    distilled = copy.deepcopy(alone)
    with_label = few(labelled, seed=seed)
    batches = endless(with_label, steps=steps, seed=seed)
    take_steps(alone, batches, steps=steps, learning_rate=LEARNING_RATE)
    session = tersely.attach(distilled, RECIPE, teacher=teacher)
    images = with_label if is_same_images else split()[0]
    batches = endless(images, steps=steps, seed=seed)
    take_steps(distilled, batches, steps=steps, learning_rate=LEARNING_RATE, session=session)
    session.finalize()
    return Row(seed, accuracy(teacher), accuracy(alone), accuracy(distilled))


def markdown(found: Sequence[Row]) -> str:
    """Return a table with a row for each seed and their means."""
    columns = [[getattr(row, name) for row in found] for name in ("teacher", "alone", "distilled")]
    mean = Row(-1, *(sum(column) / len(column) for column in columns))
    lines = ["| seed | teacher | alone | distilled | gained |", "| --- |" + " ---: |" * 4]
    for name, row in [*((str(row.seed), row) for row in found), ("mean", mean)]:
        lines.append(
            f"| {name} | {row.teacher:.2f} % | {row.alone:.2f} % | {row.distilled:.2f} % "
            f"| {row.gained:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)  # images of 8 x 8 are too small to be worth a second one
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds (5)")
    parser.add_argument("--epochs", type=int, default=12, help="of the teacher (12)")
    parser.add_argument("--steps", type=int, default=600, help="of each student (600)")
    parser.add_argument("--labelled", type=int, default=100, help="images with a label (100)")
    parser.add_argument(
        "--same-images", action="store_true", help="distil on the images with a label, no other"
    )
    given = parser.parse_args()
    found = [
        measure(
            seed=seed,
            epochs=given.epochs,
            steps=given.steps,
            labelled=given.labelled,
            is_same_images=given.same_images,
        )
        for seed in range(given.seeds)
    ]
    print(markdown(found))


if __name__ == "__main__":
    main()
