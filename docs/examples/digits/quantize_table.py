"""Quantizes the digits network to 8 and to 4 bits, seed by seed, and prints two tables.

From the root of the repository: ``python docs/examples/digits/quantize_table.py``. It takes a
minute and a half of one core.
"""

import argparse
import copy

import torch
from data import calibration
from measure import Row, accuracy, dense_network, markdown, train
from torch import nn

import laconic

SHARE = "size of the weights"


def config_list(*, weights: str) -> list[dict[str, object]]:
    """Return what is quantized: every weight by output channel, every input, biases as sums.

    Batch norms are folded into their convolutions, as they will be where integers are multiplied.

    Args:
        weights: the dtype of the weights.
    """
    return [
        {
            "op_types": ["Conv2d", "Linear"],
            "target_settings": {
                "weight": {"quant_dtype": weights, "granularity": "per_channel"},
                "_input_": {"quant_dtype": "int8", "quant_scheme": "affine"},
                "bias": {"quant_dtype": "int32"},
            },
            "target_names": ["weight", "_input_", "bias"],
            "fuse_names": [[f"conv{number}", f"norm{number}"] for number in (1, 2, 3)],
        }
    ]


def after_training(dense: nn.Module, *, seed: int) -> Row:
    """Quantize a copy of a trained network to 8 bits: four batches of images and no training."""
    model = copy.deepcopy(dense)
    session = laconic.quantize(
        model, config_list(weights="int8"), algorithm="ptq", data=calibration()
    )
    return row(dense, session, seed=seed)


def while_training(dense: nn.Module, *, seed: int, fine_tuning: int) -> Row:
    """Quantize a copy of a trained network to 4 bits while it is trained on."""
    model = copy.deepcopy(dense)
    stage = {"algorithm": "qat", "config_list": config_list(weights="int4")}
    session = laconic.attach(model, {"quantization": stage})
    session.calibrate(calibration())
    session.compress()
    train(model, seed=100 + seed, epochs=fine_tuning, learning_rate=1e-3, session=session)
    return row(dense, session, seed=seed)


def row(dense: nn.Module, session: laconic.Session, *, seed: int) -> Row:
    """Return a row of a table; the session's model is finished."""
    left = 100 * session.report().weight_size.share
    with warnings.catch_warnings(category=laconic.FinalizeWarning):
        model = session.finalize()
    return Row(seed, accuracy(dense), accuracy(model), left)
