"""Counting what a model holds and computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tersely.shrinking.program import evaluating


def parameter_count(model: nn.Module) -> int:
    """Return how many elements the model's parameters have; a shared one counts once.

    Args:
        model: the model.
    """
    return sum(parameter.numel() for parameter in model.parameters())


def mac_count(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Return the multiply-accumulate operations of one call, as torch counts them.

    Args:
        model: the model.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.
    """
    counter = FlopCounterMode(display=False)
    with evaluating(model), torch.no_grad(), counter:
        model(*args, **kwargs)
    return int(counter.get_total_flops()) // 2
