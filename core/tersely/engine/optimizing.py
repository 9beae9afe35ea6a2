"""The optimizer that moves what a stage learns, over all processes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tersely.contracts.abilities import Optimizes
from tersely.contracts.quantized_forward import OptimizesByName
from tersely.engine.processes import average_gradients

DEFAULT_LEARNING_RATE = 0.01


def make_optimizer(
    algorithm: object, learned: Mapping[tuple[str, str], Tensor]
) -> torch.optim.Optimizer:
    """Return what moves the learned tensors: as the algorithm says, or Adam.

    Args:
        algorithm: a pruner or quantizer.
        learned: (target, name) -> what it learns.
    """
    if isinstance(algorithm, OptimizesByName):
        groups: dict[str, list[Tensor]] = {}
        for (_, name), leaf in learned.items():
            groups.setdefault(name, []).append(leaf)
        return algorithm.named_optimizer({name: groups[name] for name in sorted(groups)})
    tensors = list(learned.values())
    if isinstance(algorithm, Optimizes):
        return algorithm.optimizer(tensors)
    return torch.optim.Adam(tensors, lr=DEFAULT_LEARNING_RATE)


def step_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Make one step with gradients averaged over processes, unless one is not finite.

    Args:
        optimizer: moves what one stage learns.
    """
    tensors = [one for group in optimizer.param_groups for one in group["params"]]
    average_gradients(tensors)
    gradients = [tensor.grad for tensor in tensors if tensor.grad is not None]
    if not gradients:
        return
    # A loss scaler overflows now and then; the user's optimizer skips such a step too.
    if all(bool(gradient.isfinite().all()) for gradient in gradients):
        _move_along(optimizer)
        optimizer.step()
    optimizer.zero_grad()


def _move_along(optimizer: torch.optim.Optimizer) -> None:
    """Give what an optimizer keeps the dtype and device of a model that has moved since."""
    for tensor, state in optimizer.state.items():
        for key, value in state.items():
            # As Optimizer.load_state_dict() has it, steps are counted where they are.
            if key != "step" and isinstance(value, Tensor) and value.is_floating_point():
                state[key] = value.to(tensor)
