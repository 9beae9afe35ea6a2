"""Cutting what an optimizer remembers of each parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tersely.engine.cutting import Cut
from tersely.errors import SessionError


def cut_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, cuts: Mapping[str, Cut]
) -> Callable[[], None]:
    """Cut an optimizer's state with the parameters, so that training goes on where it was.

    Args:
        optimizer: the user's optimizer.
        model: the model, of which the parameters have been cut.
        cuts: parameter -> its cut.

    Returns:
        What puts the state back.

    Raises:
        SessionError: it remembers something whose shape does not follow the parameter's.
    """
    names = {id(tensor): name for name, tensor in model.named_parameters()}
    before: list[tuple[dict[str, Any], str, Tensor]] = []
    found: list[tuple[dict[str, Any], str, Tensor]] = []
    for parameter, state in optimizer.state.items():
        cut = cuts.get(names.get(id(parameter), ""))
        if cut is None:
            continue
        for key, value in state.items():
            if not isinstance(value, Tensor) or value.ndim == 0:
                continue
            small = cut.of_any(value)
            if small is None:
                raise SessionError(
                    f"the optimizer's {key!r} of {cut.name} has shape {list(value.shape)}, which "
                    f"does not follow the parameter's {list(cut.before)}; make a new optimizer "
                    f"after shrink() and leave optimizer= out"
                )
            before.append((state, key, value))
            found.append((state, key, small))
    for state, key, small in found:
        state[key] = small

    def undo() -> None:
        for state, key, value in before:
            state[key] = value

    return undo
