"""What algorithms learn: buffers of the user's modules, and the optimizer that moves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

from tersely.arithmetic.numbered import Numbering
from tersely.contracts.pruner import Learns
from tersely.engine.state.journal import Journal
from tersely.engine.state.saver import Saved, need_shape
from tersely.engine.targets.binding import BoundTarget
from tersely.instrument.masks.mask_values import is_decided, need_whole_as_written
from tersely.instrument.names import MASK, mask_buffer, state_buffer
from tersely.instrument.transforms import put


@attrs.frozen(eq=False)
class LearnedMask:
    """A parameter's mask together with what its algorithm learns; a transform.

    It holds the algorithm, so copies and pickles of the model need no session.

    Attributes:
        pruner: the algorithm.
        buffer: name of the mask's buffer.
        learned: name -> buffer of each learned tensor.
        numbering: the target's numbered blocks, or None. What has a value for each of them is
            spread over its elements, which sums the gradient of a block's.
    """

    place: ClassVar[int] = MASK

    pruner: Learns
    buffer: str
    learned: Mapping[str, str]
    numbering: Numbering | None = None

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the tensor that forward uses."""
        buffers = module._buffers
        learned = {name: self._spread(buffers[key]) for name, key in self.learned.items()}
        mask = buffers.get(self.buffer)
        if mask is not None and not is_decided(mask):
            mask = None
        if mask is not None:
            need_whole_as_written(module, self.buffer, mask)
            mask = mask.to(value.dtype)
        return self.pruner.masked(value, mask, learned)  # type: ignore[arg-type]  # never None

    def _spread(self, learned: Tensor | None) -> Tensor | None:
        numbering = self.numbering
        if numbering is None or learned is None or learned.shape != (numbering.total,):
            return learned
        return numbering.expand(learned)


def place(bound: BoundTarget, pruner: Learns, values: Mapping[str, Tensor]) -> None:
    """Put initial values into the buffers of every module that holds a target, and use them.

    A buffer that requires a gradient is a leaf like a parameter, but it is not in
    ``model.parameters()``, so the user's optimizer never sees it.

    Args:
        bound: the target, instrumented.
        pruner: the algorithm.
        values: initial values by name.
    """
    size = None if bound.plan.blocks is None else bound.plan.blocks.size
    numbering = size if isinstance(size, Numbering) else None
    leaves = {name: value.detach().clone().requires_grad_() for name, value in values.items()}
    for module, attribute in bound.owners:
        buffers = {name: state_buffer(attribute, name) for name in leaves}
        for name, buffer in buffers.items():
            module._buffers[buffer] = leaves[name]
        mask = LearnedMask(pruner, mask_buffer(attribute), buffers, numbering)
        put(module, attribute, (mask,), place=MASK)


def learned_of(bound: BoundTarget, names: Sequence[str]) -> dict[str, Tensor]:
    """Return what is learned for a target, by name.

    Args:
        bound: the target.
        names: what its algorithm learns.
    """
    found = {}
    for name in names:
        tensor = bound.module._buffers[state_buffer(bound.plan.target, name)]
        if tensor is not None:
            found[name] = tensor
    return found


def restore_learned(
    bound: BoundTarget, learned: Mapping[str, Tensor], saved: Saved, journal: Journal
) -> None:
    """Write what was learned for a target when a session was saved into what learns now.

    Args:
        bound: the target.
        learned: what is learned for it, by name.
        saved: a checked state.
        journal: notes what changes.

    Raises:
        SessionFileError: the algorithm learns tensors of another shape.
    """
    for name, value in saved.of("learned", bound.plan.name).items():
        leaf = learned.get(name)
        need_shape("learned", bound, value, () if leaf is None else tuple(leaf.shape))
        if leaf is not None:
            journal.note_tensor(leaf)
            with torch.no_grad():
                leaf.copy_(value)
