"""The tensor that a target is, or why there is none to compress."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from tersely.contracts.kinds import TargetKind
from tersely.contracts.target_plan import Origin
from tersely.planning.remarks import Skipped
from tersely.planning.selecting.classes import RESERVED
from tersely.planning.selecting.obstacles import (
    absence,
    has_tensor,
    has_values,
    holder_of,
    obstacle,
)
from tersely.planning.stages.draft import Draft
from tersely.planning.targets.class_rows import ClassRow


def locate(
    draft: Draft, shared: ClassRow, module: nn.Module, *, name: str, origin: Origin
) -> tuple[TargetKind, Tensor] | None:
    """Return the tensor of a target and what it is, or None where it cannot be compressed.

    Args:
        draft: the plan so far; what is missing or in the way is added to it.
        shared: the target, as all modules of the class have it.
        module: the module.
        name: the module's name.
        origin: the entry.
    """
    target = shared.row.target
    kind: TargetKind = "parameter"
    tensors: Mapping[str, Tensor | None] = module._parameters
    if target not in tensors:
        kind, tensors = "buffer", module._buffers
    if target not in tensors or target.startswith(RESERVED):
        problem = absence(module, target) if shared.row.is_explicit else None
        problem = problem or holder_of(module, target)
        if problem is not None:
            draft.blame(origin.path, full_target(name, target), problem)
        return None
    tensor = tensors[target]
    if tensor is None:
        draft.skipped.append(Skipped(name, target, "the module has None there"))
        return None
    found = obstacle(module, target, tensor)
    if found is not None:
        draft.blame(origin.path, full_target(name, target), found)
        return None
    if not tensor.numel():
        reason = f"it is empty, of shape {list(tensor.shape)}"
        draft.skipped.append(Skipped(name, target, reason))
        return None
    if shared.follows is not None and not has_values(module, shared.follows):
        held = "an empty tensor" if has_tensor(module, shared.follows) else "None"
        reason = f"it follows {shared.follows}, and the module has {held} there"
        draft.skipped.append(Skipped(name, target, reason))
        return None
    return kind, tensor


def full_target(module: str, target: str) -> str:
    """Return a target's full name: ``module.target``, or the target alone for the root.

    Args:
        module: the module's name.
        target: the target's name.
    """
    return f"{module}.{target}" if module else target
