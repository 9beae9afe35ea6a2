"""Removes half of all channels of the digits network, seed by seed, and prints a table.

From the root of the repository: ``python docs/examples/digits/shrink_table.py``.
"""

import copy
import time
from collections.abc import Sequence

import attrs
import torch
from data import training_batches
from measure import Row, accuracy, dense_network, for_each_seed, train
from prune_table import follow
from safetensors.torch import save
from torch import Tensor, nn

import tersely

CONVOLUTIONS = ("conv1", "conv2", "conv3")
_ROUNDS, _CALLS = 15, 5


@attrs.frozen
class Small:
    """One seed of the table.

    Attributes:
        row: accuracies, and the share of the parameters that is left, in percent.
        latency: processor time of 64 images, in percent of the dense network's.
        file: bytes of the weights in a file, in percent of the dense network's.
    """

    row: Row
    latency: float
    file: float


def recipe() -> dict[str, object]:
    """Return the recipe: half of the filters of every convolution, and their norms' channels."""
    filters = [
        {"op_names": [name], "sparse_ratio": 0.5, "granularity": "out_channel"}
        for name in CONVOLUTIONS
    ]
    norms = [follow(f"norm{name[-1]}", name) for name in CONVOLUTIONS]
    return {"pruning": {"algorithm": "l1_norm", "config_list": [*filters, *norms]}}


def measure(*, seed: int, epochs: int, fine_tuning: int) -> Small:
    """Train, remove half of the channels, fine-tune the small network, and measure.

    Args:
        seed: of the first weights and the order of the batches.
        epochs: of the dense network.
        fine_tuning: epochs of the small network.
    """
    model = dense_network(seed=seed, epochs=epochs)
    dense, before = copy.deepcopy(model), accuracy(model)
    images = next(iter(training_batches(seed=0)))[0]
    session = tersely.attach(model, recipe(), example_inputs=images)
    session.compress()
    shrunk = session.shrink()
    train(model, seed=100 + seed, epochs=fine_tuning, learning_rate=2e-3, session=session)
    model = session.finalize()
    first, last = shrunk.parameters
    row = Row(seed, before, accuracy(model), 100 * last / first)
    file = 100 * len(save(model.state_dict())) / len(save(dense.state_dict()))
    return Small(row, 100 * fraction(model.eval(), dense.eval(), images), file)


def fraction(ours: nn.Module, theirs: nn.Module, images: Tensor) -> float:
    """Return the least time of one network over the least of the other, in turns.

    Args:
        ours: a network.
        theirs: the other.
        images: what both are called with.
    """
    spent: dict[nn.Module, list[float]] = {ours: [], theirs: []}
    with torch.inference_mode():
        for _ in range(_ROUNDS):
            for model, found in spent.items():
                start = time.process_time()
                for _ in range(_CALLS):
                    model(images)
                found.append(time.process_time() - start)
    return min(spent[ours]) / min(spent[theirs])


def markdown(found: Sequence[Small]) -> str:
    """Return a table with a row for each seed and their means."""
    lines = [
        "| seed | dense | shrunk | points lost | parameters left | latency | file size |",
        "| --- |" + " ---: |" * 6,
    ]
    values = [
        (one.row.dense, one.row.compressed, one.row.lost, one.row.share, one.latency, one.file)
        for one in found
    ]
    means = tuple(sum(column) / len(found) for column in zip(*values, strict=True))
    for name, row in zip([*range(len(found)), "mean"], [*values, means], strict=True):
        cells = [f"{one:.2f}" + " %" * (place != 2) for place, one in enumerate(row)]  # noqa: PLR2004
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    found = for_each_seed(measure, description=__doc__)
    print(markdown(found))


if __name__ == "__main__":
    main()
