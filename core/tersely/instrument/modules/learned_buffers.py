"""What algorithms learn in buffers, when a model moves or loads: the tensors stay the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tersely.instrument.names import DENSE, is_learned_scale, is_state, masked_target


def learned_by(module: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that learn, by name.

    Args:
        module: an instrumented module.
    """
    return {
        name: buffer
        for name, buffer in module._buffers.items()
        if buffer is not None and buffer.requires_grad and buffer.is_leaf
    }


def keep_learning(module: nn.Module, learned: Mapping[str, Tensor]) -> None:
    """Give buffers that learn what ``load_state_dict(assign=True)`` has put in their place.

    The tensor objects stay, since the session's optimizer knows them.

    Args:
        module: an instrumented module that was just loaded.
        learned: what `learned_by` returned before.
    """
    for name, leaf in learned.items():
        leaf.requires_grad_()  # torch.utils.swap_tensors takes that from a buffer
        loaded = module._buffers.get(name)
        if loaded is None or loaded is leaf:
            continue
        if leaf.is_meta != loaded.is_meta:
            module._buffers[name] = loaded.detach().requires_grad_()
            continue
        # Not the memory of the checkpoint, which optimizer steps would change.
        leaf.data = loaded.detach().to(leaf.dtype, copy=True)
        module._buffers[name] = leaf


def _learning(before: torch.dtype, moved: torch.dtype) -> torch.dtype:
    """Return the dtype to continue learning in: float32 or wider, unless it was narrower before."""
    widest = before.itemsize >= torch.float32.itemsize > moved.itemsize
    return torch.float32 if widest else moved


def apply_to_learned(made: Any) -> Callable[..., nn.Module]:
    """Return an instrumented class's ``_apply``, which implements ``to``, ``cuda`` and ``double``.

    A buffer that learns is moved as parameters are: the tensor object stays, since the optimizer
    knows it, and gets other values. The original would put another tensor in its place, one that
    no optimizer moves; to the device meta and back, that happens to parameters too.

    Args:
        made: the instrumented class.
    """

    def apply(self: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        learned = learned_by(self)
        kept = {
            name: buffer
            for name, buffer in self._buffers.items()
            if buffer is not None and is_state(name)
        }
        super(made, self)._apply(fn, recurse)
        for name, buffer in kept.items():
            moved = self._buffers[name]
            if moved is not None and moved.dtype != buffer.dtype:
                # A scale in half precision is another scale: it moves, and keeps its dtype.
                self._buffers[name] = buffer.to(moved.device)
        for name, leaf in learned.items():
            moved = self._buffers[name]
            if moved is None or moved is leaf:
                continue
            dtype = leaf.dtype if is_learned_scale(name) else _learning(leaf.dtype, moved.dtype)
            with torch.no_grad():
                # Steps of an optimizer are lost in half precision, and overflow.
                values = moved if leaf.is_meta else leaf
                values = values.detach().to(moved.device, dtype)
                if leaf.is_meta != values.is_meta:
                    # PyTorch gives no tensor memory that had none, nor parameters that move so.
                    self._buffers[name] = values.requires_grad_()
                    continue
                gradient = None if leaf.grad is None else leaf.grad.to(values)
                leaf.grad = None
                leaf.data = values
                leaf.grad = gradient
            self._buffers[name] = leaf
        for name, dense in self.__dict__.get(DENSE, {}).items():
            parameter = self._parameters.get(masked_target(name))
            if parameter is not None:
                dense.fit(parameter.detach())
        return self

    return apply
