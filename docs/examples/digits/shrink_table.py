"""Removes half of all channels of the digits network, seed by seed, and prints a table.

From the root of the repository: ``python docs/examples/digits/shrink_table.py``.
"""

from data import training_batches
from measure import Row, accuracy, dense_network, for_each_seed, markdown, train
from prune_table import follow

import tersely

CONVOLUTIONS = ("conv1", "conv2", "conv3")


def recipe() -> dict[str, object]:
    """Return the recipe: half of the filters of every convolution, and their norms' channels."""
    filters = [
        {"op_names": [name], "sparse_ratio": 0.5, "granularity": "out_channel"}
        for name in CONVOLUTIONS
    ]
    norms = [follow(f"norm{name[-1]}", name) for name in CONVOLUTIONS]
    return {"pruning": {"algorithm": "l1_norm", "config_list": [*filters, *norms]}}


def measure(*, seed: int, epochs: int, fine_tuning: int) -> Row:
    """Train, remove half of the channels, fine-tune the small network, and measure.

    Args:
        seed: of the first weights and the order of the batches.
        epochs: of the dense network.
        fine_tuning: epochs of the small network.
    """
    model = dense_network(seed=seed, epochs=epochs)
    before = accuracy(model)
    images = next(iter(training_batches(seed=0)))[0]
    session = tersely.attach(model, recipe(), example_inputs=images)
    session.compress()
    shrunk = session.shrink()
    train(model, seed=100 + seed, epochs=fine_tuning, learning_rate=2e-3, session=session)
    model = session.finalize()
    first, last = shrunk.parameters
    return Row(seed, before, accuracy(model), 100 * last / first)


def main() -> None:
    """Print the table."""
    found = for_each_seed(measure, description=__doc__)
    print(markdown(found, compressed="shrunk", share="parameters left"))


if __name__ == "__main__":
    main()
