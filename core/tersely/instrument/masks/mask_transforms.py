"""Masks as transforms: times 0 or 1, or plus an offset, read from a buffer of the module."""

from __future__ import annotations

import re
from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

from tersely.arithmetic.reused_memory import multiply
from tersely.errors import SessionError
from tersely.instrument.masks.dense_gradients import DenseGradient
from tersely.instrument.masks.mask_values import is_decided, need_whole_as_written
from tersely.instrument.names import DENSE, HELD, MASK, full_name

_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # of torch 2.6 and later
_SPATIAL = re.compile(r"(?<!BatchNorm)([123])d\Z")


def spatial_dims(module_type: str) -> int | None:
    """Return how many dimensions follow the channels in a channels-first module's activations.

    It distinguishes an unbatched sample, which convolutions and pools accept, from a batch.

    Args:
        module_type: the module's class name, as in ``Conv2d``.

    Returns:
        1, 2 or 3; None when the name does not tell.
    """
    found = _SPATIAL.search(module_type)
    return None if found is None else int(found[1])


@attrs.frozen
class ParameterMask:
    """Masks a parameter or buffer.

    The buffer has the parameter's dtype (a bool mask is 2 to 100 times slower) and either its
    shape or a shape that broadcasts to it. Before there is a mask it is empty.

    Attributes:
        buffer: name of the buffer: 1 kept and 0 masked, or the offset to add.
        is_additive: whether the buffer is added instead of multiplied.
        mask_value: the offset that masks, where the buffer is added.
        is_held: whether the session zeroes the parameter itself (``hold: step``).
        is_dense: whether an algorithm asks for the gradients of masked elements.
    """

    place: ClassVar[int] = MASK

    buffer: str
    is_additive: bool = False
    mask_value: float = 0.0
    is_held: bool = False
    is_dense: bool = False

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the masked tensor, or the tensor itself while there is no mask to apply."""
        # Averages are written into a model to be evaluated, and no step comes in between.
        is_held = self.is_held and module.training
        if is_held and module.__dict__[HELD][self.buffer].is_in_force:
            return value
        masked = self.settled(module, value)
        if not self.is_dense or masked is value or not torch.is_grad_enabled():
            return masked
        dense: DenseGradient = module.__dict__[DENSE][self.buffer]
        return masked + dense.fit(masked) if dense.is_wanted and not _is_exporting() else masked

    def settled(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the masked tensor, whether or not the parameter itself is masked already."""
        mask = module._buffers.get(self.buffer)
        if mask is None or not is_decided(mask):
            return value
        offset = self.mask_value if self.is_additive else None
        need_whole_as_written(module, self.buffer, mask, offset=offset)
        if mask.dtype != value.dtype:
            # FSDP2's mixed precision unshards weights in a lower dtype than they are kept in.
            mask = mask.to(value.dtype)
        return value + mask if self.is_additive else multiply(value, mask)


@attrs.frozen
class ActivationMask:
    """Masks an input or output; every sample of a batch has the same mask.

    The buffer has the sample's shape without the batch, a shape that broadcasts to it, or is a
    vector over channels; it is empty before there is a mask. A call with other lengths than those
    is refused (rule T1.4).

    Attributes:
        buffer: name of the buffer: 1 kept and 0 masked, or the offset to add.
        is_additive: whether the buffer is added instead of multiplied.
        channel_dim: the dimension of a vector over channels, counted with the batch: 1 or -1.
        spatial: how many dimensions follow the channels in dimension 1, or None when any may.
        target: the address of the input or output, for errors.
        is_of_channels: whether the buffer has one value per channel, also where it has only one.
        mask_value: the offset that masks, where the buffer is added.
    """

    place: ClassVar[int] = MASK

    buffer: str
    is_additive: bool = False
    channel_dim: int = -1
    spatial: int | None = None
    target: str = ""
    is_of_channels: bool = False
    mask_value: float = 0.0

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the masked tensor, or the tensor itself while there is no mask."""
        mask = module._buffers.get(self.buffer)
        if mask is None or not is_decided(mask):
            return value
        offset = self.mask_value if self.is_additive else None
        need_whole_as_written(module, self.buffer, mask, offset=offset)
        if mask.ndim == 1 and self.channel_dim == 1:
            trailing = value.ndim - 2 if self.spatial is None else self.spatial
            mask = mask.view(-1, *(1,) * trailing)
        self._need_lengths(module, mask, value)
        if mask.dtype != value.dtype:
            mask = mask.to(value.dtype)  # autocast changes the activation's dtype, not the mask's
        return value + mask if self.is_additive else value * mask

    def _need_lengths(self, module: nn.Module, mask: Tensor, value: Tensor) -> None:
        lengths = value.shape[-mask.ndim :] if mask.ndim else ()
        channels = 0 if self.channel_dim == 1 else mask.ndim - 1
        if mask.ndim <= value.ndim and all(
            mine == length or (mine == 1 and not (self.is_of_channels and dim == channels))
            for dim, (mine, length) in enumerate(zip(mask.shape, lengths, strict=True))
        ):
            return
        raise SessionError(
            f"{full_name(module, self.target)}: its mask has shape {list(mask.shape)} for one "
            f"sample, and this call has shape {list(value.shape)}; a mask applies to the lengths "
            "that it was decided for: calibrate and compress with this shape, or mask along "
            "dimensions whose length does not change, as granularity per_channel does",
            target=full_name(module, self.target),
        )
