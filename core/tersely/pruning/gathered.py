"""What algorithms gathered and changed, as named tensors for a saved session, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tersely.engine.binding import Handle
from tersely.errors import SessionFileError
from tersely.json_value import Json
from tersely.pruning.engine import Pruning
from tersely.pruning.run import PruningRun

OBSERVED, LEARNED, MOVED = "observed", "learned", "moved"
VALUE, ORIGINAL = "value", "original"
KINDS = (OBSERVED, LEARNED, MOVED, VALUE, ORIGINAL)


def gathered_state(pruning: Pruning) -> tuple[dict[str, Tensor], dict[str, Json]]:
    """Return everything beyond masks that a session needs to go on bit for bit.

    Args:
        pruning: the session's pruning.

    Returns:
        Tensors by ``kind:part:target``, and JSON data.
    """
    tensors: dict[str, Tensor] = {}
    for run in pruning.runs:
        for handle, sums in run.observed.items():
            for part, tensor in sums.items():
                tensors[_key(OBSERVED, part, handle)] = tensor.clone()
        for handle in run.handles if run.is_trained else ():
            for part, tensor in run.learned(handle).items():
                tensors[_key(LEARNED, part, handle)] = tensor.detach()
        tensors.update(_moved(run))
    for handle, values in pruning.originals.items():
        tensors[_key(ORIGINAL, "", handle)] = values
        tensors[_key(VALUE, "", handle)] = handle.dense()
    frozen = sorted(handle.plan.name for handle in pruning.frozen)
    return tensors, {"frozen": frozen, "handed_over": pruning.is_handed_over}


def _key(kind: str, part: str, handle: Handle) -> str:
    return f"{kind}:{part}:{handle.plan.name}"


def _moved(run: PruningRun) -> dict[str, Tensor]:
    if run.optimizer is None:
        return {}
    state = run.optimizer.state_dict()["state"]
    return {
        f"{MOVED}:{part}:{run.number}.{index}": torch.as_tensor(value)
        for index, parts in state.items()
        for part, value in parts.items()
        if value is not None
    }


def restore_gathered(
    pruning: Pruning, tensors: Mapping[str, Tensor], data: Mapping[str, Json]
) -> None:
    """Put gathered tensors back.

    Args:
        pruning: the pruning of a freshly attached session of the same plan.
        tensors: what `gathered_state` returned.
        data: its JSON data.

    Raises:
        SessionFileError: a tensor belongs to another plan or has another shape; nothing changed.
    """
    handles = {handle.plan.name: handle for handle in pruning.handles}
    changes: list[tuple[str, str, Any, Tensor]] = []
    for key, tensor in tensors.items():
        kind, part, name = key.split(":", 2)
        owner: Any = name if kind == MOVED else handles.get(name)
        if owner is None or kind not in KINDS:
            raise SessionFileError(f"the saved session has {key!r}, which its plan does not know")
        if kind != MOVED:
            _check_shape(pruning, kind, part, owner, tensor)
        changes.append((kind, part, owner, tensor))
    moved: dict[int, dict[int, dict[str, Tensor]]] = {}
    for kind, part, owner, tensor in changes:
        if kind == MOVED:
            number, _, index = owner.partition(".")
            moved.setdefault(int(number), {}).setdefault(int(index), {})[part] = tensor
        else:
            _put_back(pruning, kind, part, owner, tensor)
    for run in pruning.runs:
        if run.optimizer is not None and run.number in moved:
            whole = run.optimizer.state_dict()
            run.optimizer.load_state_dict({**whole, "state": moved[run.number]})
    pruning.frozen = {handles[name] for name in data.get("frozen", []) if name in handles}
    if data.get("handed_over"):
        pruning.hand_over()


def _check_shape(pruning: Pruning, kind: str, part: str, handle: Handle, tensor: Tensor) -> None:
    expected = tensor.shape if kind == OBSERVED else torch.Size(handle.plan.shape or ())
    if kind == LEARNED:
        found = _run_of(pruning, handle).learned(handle).get(part)
        expected = torch.Size(()) if found is None else found.shape
    if tensor.shape != expected:
        raise SessionFileError(
            f"the saved {kind} tensor of {handle.plan.name} has shape {list(tensor.shape)}, "
            f"expected {list(expected)}"
        )


def _put_back(pruning: Pruning, kind: str, part: str, handle: Handle, tensor: Tensor) -> None:
    run = _run_of(pruning, handle)
    tensor = tensor.to(handle.raw.device)
    if kind == OBSERVED:
        run.observed.setdefault(handle, {})[part] = tensor
    elif kind == ORIGINAL:
        pruning.originals[handle] = tensor
    elif kind == VALUE:
        handle.write(tensor)
    else:
        with torch.no_grad():
            run.learned(handle)[part].copy_(tensor)


def _run_of(pruning: Pruning, handle: Handle) -> PruningRun:
    return next(run for run in pruning.runs if run.number == handle.plan.stage)
