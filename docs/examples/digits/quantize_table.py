"""Quantizes the digits network to 8 and to 4 bits, seed by seed, and prints two tables.

From the root of the repository: ``python docs/examples/digits/quantize_table.py``. It takes a
minute of one core.
"""

import argparse
import copy

import torch
from data import calibration
from measure import Row, accuracy, dense_network, markdown, train
from torch import nn

import tersely


def config_list(*, dtype: str) -> list[dict[str, object]]:
    """Return what is quantized: weights by output channel, the inputs of all layers, biases.

    Batch norms are folded, as they have to be where integers are multiplied.

    Args:
        dtype: of weights and inputs.
    """
    return [
        {
            "op_types": ["Conv2d", "Linear"],
            "target_settings": {
                "weight": {"quant_dtype": dtype, "granularity": "per_channel"},
                "_input_": {"quant_dtype": dtype, "quant_scheme": "affine"},
                "bias": {"quant_dtype": "int32"},
            },
            "target_names": ["weight", "_input_", "bias"],
            "fuse_names": [[f"conv{number}", f"norm{number}"] for number in (1, 2, 3)],
        }
    ]


def after_training(dense: nn.Module, *, seed: int) -> Row:
    """Quantize a network to 8 bits after training, on four batches of images without labels.

    Args:
        dense: the trained network, which stays as it is.
        seed: with which it was trained.
    """
    session = tersely.quantize(
        copy.deepcopy(dense), config_list(dtype="int8"), algorithm="ptq", data=calibration()
    )
    return _row(dense, session, seed=seed)


def while_training(dense: nn.Module, *, seed: int, fine_tuning: int) -> Row:
    """Quantize a network to 4 bits while it is trained on.

    Args:
        dense: the trained network, which stays as it is.
        seed: with which it was trained.
        fine_tuning: epochs after that.
    """
    stage = {"algorithm": "qat", "config_list": config_list(dtype="int4")}
    model = copy.deepcopy(dense)
    session = tersely.attach(model, {"quantization": stage})
    session.calibrate(calibration())
    session.compress()
    train(model, seed=100 + seed, epochs=fine_tuning, learning_rate=1e-3, session=session)
    return _row(dense, session, seed=seed)


def _row(dense: nn.Module, session: tersely.Session, *, seed: int) -> Row:
    # The attached model computes what the finished one will compute.
    size = 100 * session.report().quantized_size.share
    return Row(seed, accuracy(dense), accuracy(session.model), size)


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)  # images of 8 x 8 are too small to be worth a second one
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds (5)")
    parser.add_argument("--epochs", type=int, default=12, help="of the dense network (12)")
    parser.add_argument("--fine-tuning", type=int, default=8, help="epochs in 4 bits (8)")
    given = parser.parse_args()
    after, during = [], []
    for seed in range(given.seeds):
        dense = dense_network(seed=seed, epochs=given.epochs)
        after.append(after_training(dense, seed=seed))
        during.append(while_training(dense, seed=seed, fine_tuning=given.fine_tuning))
    print(markdown(after, compressed="int8, ptq", share="size of the weights"))
    print()
    print(markdown(during, compressed="int4, qat", share="size of the weights"))


if __name__ == "__main__":
    main()
