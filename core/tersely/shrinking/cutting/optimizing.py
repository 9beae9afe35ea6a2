"""Cutting an optimizer's state of each parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tersely.engine.state.cutting import Cut
from tersely.errors import SessionError


def remember(optimizer: torch.optim.Optimizer | None) -> Callable[[], None]:
    """Return what puts an optimizer back as it is now.

    Args:
        optimizer: the user's, or None.
    """
    if optimizer is None:
        return lambda: None
    state = {parameter: dict(known) for parameter, known in optimizer.state.items()}
    groups = [list(group["params"]) for group in optimizer.param_groups]

    def put_back() -> None:
        optimizer.state.clear()
        optimizer.state.update(state)
        for group, parameters in zip(optimizer.param_groups, groups, strict=True):
            group["params"] = parameters

    return put_back


def cut_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, cuts: Mapping[str, Cut]
) -> None:
    """Cut an optimizer's state with the parameters, so that training continues where it was.

    Args:
        optimizer: the user's optimizer.
        model: the model, of which the parameters have been cut.
        cuts: parameter -> its cut.

    Raises:
        SessionError: it holds a tensor whose shape does not follow the parameter's.
    """
    for name, parameter in model.named_parameters():
        if name in cuts and parameter in optimizer.state:
            optimizer.state[parameter] = _cut(optimizer.state[parameter], cuts[name])


def replace_learned(
    optimizer: torch.optim.Optimizer,
    old: Mapping[tuple[str, str], Tensor],
    new: Mapping[tuple[str, str], Tensor],
    cuts: Mapping[str, Cut],
) -> None:
    """Let an optimizer move what is learned now in place of what was learned before.

    Args:
        optimizer: the user's optimizer.
        old: what was learned, by target and name.
        new: what is learned.
        cuts: target -> its cut.
    """
    twins = {id(leaf): (key, new[key]) for key, leaf in old.items() if key in new}
    for group in optimizer.param_groups:
        for place, parameter in enumerate(group["params"]):
            if id(parameter) not in twins:
                continue
            (target, _), twin = twins[id(parameter)]
            group["params"][place] = twin
            state = optimizer.state.pop(parameter, None)
            if state is not None:
                optimizer.state[twin] = _cut(state, cuts[target]) if target in cuts else state


def _cut(state: Mapping[str, Any], cut: Cut) -> dict[str, Any]:
    found = dict(state)
    for key, value in state.items():
        if not isinstance(value, Tensor) or value.ndim == 0:
            continue
        small = cut.of_any(value)
        if small is None:
            raise SessionError(
                f"the optimizer's {key!r} of {cut.name} has shape {list(value.shape)}, which does "
                f"not follow the parameter's {list(cut.before)}; make a new optimizer after "
                "shrink() and leave optimizer= out",
                target=cut.name,
            )
        found[key] = small
    return found
