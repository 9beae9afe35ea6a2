"""Prunes, quantizes and distils the digits network from one file, seed by seed; prints a table.

From the root of the repository: ``python docs/examples/digits/everything_table.py``. It takes
two and a half minutes of one core.
"""

import copy
from collections.abc import Sequence
from pathlib import Path

import attrs
from measure import Row, accuracy, dense_network, for_each_seed, train

import tersely

RECIPE = Path(__file__).with_name("everything.yaml")


@attrs.frozen
class Both:
    """One seed of the table.

    Attributes:
        row: accuracies, and the share of the convolutions' weights that is pruned.
        size: what all weights take in 8 bits with their scales, in percent of float32.
    """

    row: Row
    size: float


def measure(*, seed: int, epochs: int, fine_tuning: int) -> Both:
    """Train a dense network, do to a copy what the recipe says, and measure both.

    Args:
        seed: of the first weights and the order of the batches.
        epochs: of the dense network.
        fine_tuning: epochs after that; the recipe is written for 30.
    """
    dense = dense_network(seed=seed, epochs=epochs)
    model = copy.deepcopy(dense)
    session = tersely.attach(model, tersely.load_recipe(RECIPE), teacher=dense)
    session.compress()
    train(model, seed=100 + seed, epochs=fine_tuning, learning_rate=2e-3, session=session)
    # The attached model computes what the finished one will compute.
    row = Row(seed, accuracy(dense), accuracy(model), pruned(session))
    return Both(row, 100 * session.report().quantized_size.share)


def pruned(session: tersely.Session) -> float:
    """Return the share of the convolutions' weights that masks take, in percent."""
    masks = [targets["weight"] for name, targets in session.masks().items() if "conv" in name]
    return 100 * sum(int((~mask).sum()) for mask in masks) / sum(mask.numel() for mask in masks)


def markdown(found: Sequence[Both]) -> str:
    """Return a table with a row for each seed and their means."""
    count = len(found)
    mean = Both(
        Row(
            -1,
            sum(one.row.dense for one in found) / count,
            sum(one.row.compressed for one in found) / count,
            sum(one.row.share for one in found) / count,
        ),
        sum(one.size for one in found) / count,
    )
    lines = [
        "| seed | dense | compressed | points lost | weights of convolutions gone "
        "| size of the weights |",
        "| --- |" + " ---: |" * 5,
    ]
    for name, one in [*((str(one.row.seed), one) for one in found), ("mean", mean)]:
        row = one.row
        lines.append(
            f"| {name} | {row.dense:.2f} % | {row.compressed:.2f} % | {row.lost:.2f} "
            f"| {row.share:.2f} % | {one.size:.2f} % |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    found = for_each_seed(measure, description=__doc__)
    print(markdown(found))


if __name__ == "__main__":
    main()
