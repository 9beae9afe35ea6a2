"""What a targeted parameter shows, as a tensor whose writes act on the parameter.

``layer.weight`` of a target is computed: masked, fake-quantized. A plain tensor would swallow what
is written into it. `Shown` computes as fast as a parameter does, and passes writes on to the
parameter:

==========================================  =====================================================
written                                     becomes
==========================================  =====================================================
``shown.mul_(2)``, ``shown[0] = 0``         the same on the parameter
``shown.data.clamp_(...)``                  the same on the parameter's ``data``
``shown.view(-1)[3] = 0``, ``shown.t()``    the same steps on the parameter, then the same write
``shown.data = value``, ``shown.copy_()``   assigned, except where ``value`` equals what was shown
``shown.grad``, ``requires_grad``, hooks    the parameter's
``shown.resize_(...)``, ``shown.t_()``      refused: the target would get another shape
``torch.eye(..., out=shown)``               seen by its version afterwards, and refused then
==========================================  =====================================================
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from tersely.errors import SessionError
from tersely.instrument.names import full_name
from tersely.instrument.shown.lost_writes import Version, note_lost_write
from tersely.instrument.shown.sources import (
    Step,
    computed_again,
    merged,
    no_parameter,
    raw_of,
    swapped,
)


class _Meta(torch._C._TensorMeta):
    """Counts parameters as instances: `torch.testing` compares tensors of related types only."""

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, nn.Parameter) or super().__instancecheck__(instance)


class Shown(Tensor, metaclass=_Meta):
    """The values of a targeted parameter as forward computes with them.

    It is a computed tensor that got this class, so nothing is copied; operators take it as they
    take a parameter and return plain tensors.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # as nn.Parameter has it

    _tersely_of: tuple[nn.Module, str]
    _tersely_steps: tuple[Step, ...] = ()
    _tersely_version: Version | None = None

    @property
    def data(self) -> Tensor:
        """An alias without gradient, whose writes act on the parameter's ``data``."""
        return alias(self, _DATA.__get__(self), Step("data"), has_own_version=True)

    @data.setter
    def data(self, value: Tensor) -> None:
        if self._tersely_steps:
            _DATA.__set__(self, value)
        else:
            _assign(self, value)

    @property
    def grad(self) -> Tensor | None:
        """The parameter's gradient."""
        if self._tersely_steps or self.retains_grad:
            return cast("Tensor | None", _GRAD.__get__(self))
        return raw_parameter(self).grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if self._tersely_steps:
            _GRAD.__set__(self, value)
        else:
            raw_parameter(self).grad = value

    @grad.deleter
    def grad(self) -> None:
        self.grad = None

    @property
    def requires_grad(self) -> bool:
        """Whether gradients are computed; setting it sets the parameter's."""
        return cast("bool", _REQUIRES_GRAD.__get__(self))

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if self._tersely_steps:
            _REQUIRES_GRAD.__set__(self, value)
        else:
            raw_parameter(self).requires_grad = value

    def detach(self) -> Tensor:
        """Return an alias without gradient, whose writes act on the parameter."""
        return alias(self, Tensor.detach(self), Step("detach"))

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set whether gradients are computed, of the parameter.

        Args:
            requires_grad: whether they are.
        """
        self.requires_grad = requires_grad
        return self

    def register_hook(self, hook: Callable[[Tensor], Any]) -> Any:
        """Register a hook for the parameter's gradient.

        Args:
            hook: called with the gradient.
        """
        if self._tersely_steps:
            return super().register_hook(hook)  # type: ignore[no-untyped-call]  # PyTorch's
        return raw_parameter(self).register_hook(hook)  # type: ignore[no-untyped-call]  # PyTorch's

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], Any]) -> Any:
        """Register a hook that runs once the parameter's gradient is there.

        Args:
            hook: called with the parameter.
        """
        return raw_parameter(self).register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]  # PyTorch's

    def numpy(self, *, force: bool = False) -> Any:
        """Return the values as an array that cannot be written, since that would change nothing.

        Args:
            force: also of a tensor that requires a gradient or is on another device.
        """
        array = Tensor.numpy(self, force=force)
        array.flags.writeable = False
        return array

    @property
    def grad_fn(self) -> Any:  # type: ignore[override]  # PyTorch declares an attribute
        """What computed it; a module that takes it for a parameter is refused."""
        if sys._getframe(1).f_code is nn.Module.register_parameter.__code__:
            raise no_parameter(*self._tersely_of)
        return _GRAD_FN.__get__(self)

    @property
    def _is_param(self) -> bool:
        return not self._tersely_steps  # get_parameter() asks it, which transformers ties by

    @_is_param.setter
    def _is_param(self, value: bool) -> None:
        # torch.nn.Parameter(shown) marks what detach() returned; it is to be a plain parameter.
        let_go(self, nn.Parameter if value else Tensor)

    @property
    def _is_buffer(self) -> bool:
        return False

    @_is_buffer.setter
    def _is_buffer(self, value: bool) -> None:
        let_go(self, Tensor)
        self._is_buffer = value

    def _use_count(self) -> int:
        # torch.utils.swap_tensors() asks for it before it swaps what is computed for a parameter.
        if not self._tersely_steps:
            raise swapped(*self._tersely_of)
        plain: Any = super()  # of a method that torch's types leave out
        count: int = plain._use_count()
        return count

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        with _as_plain(self):
            return Tensor.__deepcopy__(self, memo)  # type: ignore[no-untyped-call]  # PyTorch's

    def __reduce_ex__(self, protocol: Any) -> Any:
        with _as_plain(self):
            return Tensor.__reduce_ex__(self, protocol)  # type: ignore[no-untyped-call]  # PyTorch's

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]  # PyTorch's has no types
        with _as_plain(self):
            return repr(self)


class WatchedShown(Shown):
    """Shown values that have a version, so that writes of functions are seen: looked at last."""

    def __del__(self) -> None:
        """Note a write that no method of the tensor saw."""
        version = self._tersely_version
        if self._version != (0 if version is None else version.number):
            note_lost_write(*self._tersely_of)
            settle(self)


_DATA: Any = Tensor.data
_GRAD: Any = Tensor.grad
_GRAD_FN: Any = Tensor.grad_fn
_REQUIRES_GRAD: Any = Tensor.requires_grad


def watch(value: Tensor) -> None:
    """Give a tensor that was just computed the class of shown ones.

    Args:
        value: the tensor.
    """
    if value.is_inference():
        value.__class__ = Shown  # without a version writes are not seen
        return
    value.__class__ = WatchedShown
    if value._version:
        settle(value)  # type: ignore[arg-type]  # of this class since now


def settle(shown: Shown) -> None:
    """Take the version that a tensor has now for the one without writes of others.

    Args:
        shown: the tensor.
    """
    version = _shared_version(shown)
    if version is not None:
        version.number = shown._version


def _shared_version(shown: Shown) -> Version | None:
    if type(shown) is not WatchedShown:
        return None
    if shown._tersely_version is None:
        shown._tersely_version = Version()
    return shown._tersely_version


def let_go(shown: Shown, cls: type[Tensor]) -> None:
    """Let a shown tensor be one of its own, whose writes act on no parameter.

    Args:
        shown: the tensor.
        cls: the class that it gets.
    """
    for name in [name for name in shown.__dict__ if name.startswith("_tersely_")]:
        del shown.__dict__[name]
    shown.__class__ = cls  # type: ignore[assignment]  # all of them have one layout


@contextmanager
def _as_plain(shown: Shown) -> Iterator[None]:
    cls, kept = type(shown), dict(shown.__dict__)
    let_go(shown, Tensor)
    try:
        yield
    finally:
        shown.__class__ = cls
        shown.__dict__.update(kept)


def raw_parameter(shown: Shown) -> Tensor:
    """Return the parameter, or the alias or view of it, that a shown tensor represents.

    Args:
        shown: the tensor.
    """
    return raw_of(*shown._tersely_of, shown._tersely_steps)


def refresh(shown: Shown) -> None:
    """Let a tensor that the user keeps show what its parameter is since the write.

    Args:
        shown: the tensor.
    """
    with torch.inference_mode() if shown.is_inference() else torch.no_grad():
        value = computed_again(*shown._tersely_of, shown._tersely_steps)
        if value.shape != shown.shape:
            return
        is_data = any(step.name == "data" for step in shown._tersely_steps)
        Tensor.copy_(_DATA.__get__(shown) if is_data else shown, value)
        settle(shown)


def alias(shown: Shown, result: Tensor, step: Step, *, has_own_version: bool = False) -> Tensor:
    """Let the writes into an alias or view act on the parameter's.

    Args:
        shown: what it is an alias or view of.
        result: a tensor that was just made; it gets another class.
        step: how it was made.
        has_own_version: whether writes into it leave the version of ``shown`` alone.

    Returns:
        The same tensor.
    """
    found = cast("Shown", result)
    if has_own_version:
        watch(result)
    else:
        result.__class__ = type(shown)
        version = _shared_version(shown)
        if version is not None:
            found._tersely_version = version
    found._tersely_of = shown._tersely_of
    found._tersely_steps = (*shown._tersely_steps, step)
    return found


def _assign(shown: Shown, value: Tensor) -> None:
    raw = raw_parameter(shown)
    if value.shape != raw.shape:
        module, name = shown._tersely_of
        raise SessionError(
            f"{full_name(module, name)}.data: a tensor of shape {list(value.shape)} is assigned, "
            f"and the session was attached to one of shape {list(raw.shape)}; change shapes before "
            "tersely.attach(), or with session.shrink()",
            target=full_name(module, name),
        )
    if type(value) in (Shown, WatchedShown) and _is_whole(value):
        # ``weight.data += 1`` assigns what it has written, and two targets are tied by their data.
        raw.data = raw_parameter(cast("Shown", value)).data
    else:
        with torch.no_grad():
            raw.data = merged(_DATA.__get__(shown), value, raw.data)
    refresh(shown)


def _is_whole(shown: Any) -> bool:
    return all(step.name in ("data", "detach") for step in shown._tersely_steps)
