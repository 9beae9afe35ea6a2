"""Prunes the filters of the digits network's convolutions, seed by seed, and prints a table.

From the root of the repository: ``python docs/examples/digits/prune_table.py``. It takes a minute
and a half of one core.
"""

from data import training_batches
from measure import Row, accuracy, dense_network, for_each_seed, markdown, train
from torch import nn

import tersely

RATIOS = {"conv1": 0.5, "conv2": 0.75, "conv3": 0.83}
"""Share of the filters to prune: 8 of 16, 24 of 32 and 53 of 64, which hold 81 % of the weights.

The first layer holds 0.6 % of them, and everything passes through it: it gives less.
"""


def recipe(*, every: int, times: int) -> dict[str, object]:
    """Return the recipe: whole filters, more of them at each of some updates."""
    filters = [
        {"op_names": [name], "sparse_ratio": ratio, "granularity": "out_channel"}
        for name, ratio in RATIOS.items()
    ]
    norms = [follow(f"norm{name[-1]}", name) for name in RATIOS]
    return {
        "pruning": {
            "algorithm": "l1_norm",
            "schedule": {"name": "agp", "every": every, "times": times},
            "config_list": [*filters, *norms],
        }
    }


def follow(norm: str, conv: str) -> dict[str, object]:
    """Return the entry of a batch norm whose channels go where its convolution's filters go."""
    align = {"align": {"module_name": conv, "target_name": "weight", "dims": [0]}}
    return {"op_names": [norm], "target_settings": {"weight": align, "bias": align}}


def measure(*, seed: int, epochs: int, fine_tuning: int) -> Row:
    """Train, prune while fine-tuning, and measure one network.

    Args:
        seed: of the first weights and the order of the batches.
        epochs: of the dense network.
        fine_tuning: epochs after that; filters go in the first half of them.
    """
    model = dense_network(seed=seed, epochs=epochs)
    before = accuracy(model)
    # Two updates an epoch, through the first half of the epochs.
    every = len(training_batches(seed=0)) // 2
    session = tersely.attach(model, recipe(every=every, times=fine_tuning))
    session.compress()
    train(model, seed=100 + seed, epochs=fine_tuning, learning_rate=2e-3, session=session)
    model = session.finalize()
    return Row(seed, before, accuracy(model), zeros(model))


def zeros(model: nn.Module) -> float:
    """Return the share of zeros among the weights of all convolutions, in percent."""
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    count = sum(int((weight == 0).sum()) for weight in weights)
    return 100 * count / sum(weight.numel() for weight in weights)


def main() -> None:
    """Print the table."""
    found = for_each_seed(measure, description=__doc__)
    print(markdown(found, compressed="pruned", share="weights of convolutions gone"))


if __name__ == "__main__":
    main()
