"""What a session's state is: the masks and statistics it holds, and how they come back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from tersely.calibration.statistic import Statistic, statistic_for
from tersely.distillation.projection import PREFIX as PROJECTED
from tersely.distillation.projection import projection_state, restore_projections
from tersely.engine.binding import Handle
from tersely.errors import SessionError, SessionFileError
from tersely.json_value import Json
from tersely.pruning.gathered import KINDS, gathered_state, restore_gathered
from tersely.pruning.mask_buffers import is_kept, mask_of, remove_mask, write_mask
from tersely.quantization.state import (
    PREFIX,
    Parts,
    quantization_state,
    restore_quantization,
    understand,
)
from tersely.storage.session_folder import save_session
from tersely.storage.versions import used_plugins

if TYPE_CHECKING:
    from tersely.session.session import Session

_MASK = "mask:"
_SEEN = "seen:"


def session_state(session: Session) -> tuple[dict[str, Tensor], dict[str, Json]]:
    """Return everything that `restore_state` needs.

    Args:
        session: an attached session.

    Returns:
        Bool masks, True = kept, by ``mask:<target>``; what calibration saw by ``seen:<target>``;
        and JSON data.
    """
    tensors = {}
    for handle in session._pruning.handles:
        mask = mask_of(handle)
        if mask is not None:
            tensors[_MASK + handle.plan.name] = is_kept(handle, mask)
    seen = {}
    for handle, statistic in session._pruning.statistics.items():
        if statistic.total is not None:
            tensors[_SEEN + handle.plan.name] = statistic.total
            seen[handle.plan.name] = {
                "count": statistic.count,
                "sample_shape": list(statistic.sample_shape),
            }
    gathered, about = gathered_state(session._pruning)
    tensors.update(gathered)
    tensors.update(projection_state(session._distillation.projections))
    quantized, about_quantized = quantization_state(session._quantization)
    tensors.update(quantized)
    data = {
        "steps": session.steps,
        "is_compressed": session._pruning.is_compressed,
        "history": [dict(one) for one in session.history],
        "metrics": dict(session.metrics),
        "seen": seen,
        "gathered": about,
        "quantization": about_quantized,
    }
    return tensors, data


def save(session: Session, directory: str | os.PathLike[str]) -> None:
    """Write a session into a folder.

    Args:
        session: an attached session.
        directory: the folder.

    Raises:
        SessionFileError: the folder cannot be written.
    """
    tensors, data = session_state(session)
    save_session(
        directory,
        tensors=tensors,
        data=data,
        plan=session.plan.to_dict(),
        recipe=dict(session.plan.recipe.document),
        plugins=used_plugins(session.plan),
    )


@attrs.frozen(eq=False)
class _State:
    """A saved state, understood and checked against a session."""

    masks: dict[Handle, Tensor]
    statistics: dict[Handle, Statistic]
    gathered: dict[str, Tensor]
    about_gathered: dict[str, Json]
    quantized: Parts
    about_quantized: dict[str, Json]
    projected: dict[str, Tensor]
    steps: int
    is_compressed: bool
    history: list[dict[str, Json]]
    metrics: dict[str, float]


def restore_state(
    session: Session, tensors: Mapping[str, Tensor], data: Mapping[str, Json]
) -> None:
    """Put a saved state in force.

    Args:
        session: an attached session of the same plan.
        tensors: the saved tensors.
        data: the saved JSON data.

    Raises:
        SessionFileError: the state belongs to another plan or model; the session is unchanged.
        SessionError: a stage has begun that had not when the state was taken.
    """
    state = _understand(session, tensors, data)
    for stage in session.plan.recipe.stages:
        if stage.has_begun(session.steps) and not stage.has_begun(state.steps):
            raise SessionError(
                f"the state is that of step {state.steps}, and {stage.path} has begun in this "
                f"session; restore it in a session that was just attached"
            )
    session._pruning.move_to(state.steps)
    restore_gathered(session._pruning, state.gathered, state.about_gathered)
    for handle in session._pruning.handles:
        if handle in state.masks:
            write_mask(handle, state.masks[handle], session.model)
        else:
            remove_mask(handle)
    session._pruning.statistics = state.statistics
    session._pruning.is_compressed = state.is_compressed
    restore_quantization(
        session._quantization, state.quantized, state.about_quantized, steps=state.steps
    )
    restore_projections(session._distillation.projections, state.projected)
    session.steps, session.history, session.metrics = state.steps, state.history, state.metrics


def _understand(
    session: Session, tensors: Mapping[str, Tensor], data: Mapping[str, Json]
) -> _State:
    handles = {handle.plan.name: handle for handle in session._pruning.handles}
    masks: dict[Handle, Tensor] = {}
    statistics: dict[Handle, Statistic] = {}
    gathered: dict[str, Tensor] = {}
    quantized = {key: tensor for key, tensor in tensors.items() if key.startswith(PREFIX)}
    projected = {key: tensor for key, tensor in tensors.items() if key.startswith(PROJECTED)}
    try:
        seen = dict(data.get("seen", {}))
        for key, tensor in tensors.items():
            kind, _, name = key.partition(":")
            if key in quantized or key in projected:
                continue
            if kind in KINDS:
                gathered[key] = tensor
                continue
            handle = handles.get(name)
            if handle is None or f"{kind}:" not in (_MASK, _SEEN):
                raise SessionFileError(
                    f"the saved session has {key!r}, which its plan does not know"
                )
            if f"{kind}:" == _MASK:
                masks[handle] = _checked_mask(handle, tensor)
            else:
                statistics[handle] = _statistic_of(session, handle, tensor, seen[name])
        state = _State(
            masks,
            statistics,
            gathered,
            dict(data.get("gathered", {})),
            understand(session._quantization, quantized),
            dict(data["quantization"]),
            projected,
            int(data["steps"]),
            bool(data["is_compressed"]),
            [dict(one) for one in data["history"]],
            dict(data["metrics"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SessionFileError(f"the saved session lacks a part of its state: {error!r}") from error
    # Before the first update of a schedule an input or output has no mask: its shape is not known.
    growing = {run.number for run in session._pruning.runs if not run.factor(state.steps)}
    absent = [
        name
        for name, handle in handles.items()
        if handle not in masks and handle.plan.stage not in growing
    ]
    if state.is_compressed and absent:
        raise SessionFileError(f"the saved session lacks the mask of {absent[0]}")
    return state


def _checked_mask(handle: Handle, kept: Tensor) -> Tensor:
    shape = handle.plan.shape
    fits = shape is None or (
        kept.ndim == len(shape)
        and all(one in (1, length) for one, length in zip(kept.shape, shape, strict=True))
    )
    if kept.dtype != torch.bool or not fits:
        dtype = str(kept.dtype).removeprefix("torch.")
        raise SessionFileError(
            f"the saved mask of {handle.plan.name} is {dtype} of shape {list(kept.shape)}, "
            f"expected bool that fits the model's {list(shape or ())}"
        )
    return kept


def _statistic_of(
    session: Session, handle: Handle, total: Tensor, found: Mapping[str, Json]
) -> Statistic:
    device = next(handle.module.parameters(), total).device
    statistic = statistic_for(handle, session.plan.recipe.stages)
    statistic.total = total.to(device)
    statistic.count = int(found["count"])
    statistic.sample_shape = tuple(int(length) for length in found["sample_shape"])
    return statistic
