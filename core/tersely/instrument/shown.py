"""What a targeted parameter shows, as a tensor whose writes act on the parameter.

``layer.weight`` of a target is computed: masked, fake-quantized. A plain tensor would swallow what
is written into it. `Shown` computes as fast as a parameter does, and hands over what it is asked to
change:

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

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import attrs
import torch
from torch import Tensor, nn

from tersely.errors import SessionError
from tersely.instrument import tensor_methods
from tersely.instrument.lost_writes import note_lost_write
from tersely.instrument.names import full_name
from tersely.instrument.sources import Step, computed_again, merged, raw_of


@attrs.define(eq=False)
class Version:
    """The version that a tensor and its views have when nobody wrote into them; it moves with ours.

    Attributes:
        number: the version.
    """

    number: int


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
        return _alias(self, _DATA.__get__(self), Step("data"), has_own_version=True)

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
        return _raw(self).grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if self._tersely_steps:
            _GRAD.__set__(self, value)
        else:
            _raw(self).grad = value

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
            _raw(self).requires_grad = value

    def detach(self) -> Tensor:
        """Return an alias without gradient, whose writes act on the parameter."""
        return _alias(self, Tensor.detach(self), Step("detach"))

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
        return _raw(self).register_hook(hook)  # type: ignore[no-untyped-call]  # PyTorch's

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], Any]) -> Any:
        """Register a hook that runs once the parameter's gradient is there.

        Args:
            hook: called with the parameter.
        """
        return _raw(self).register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]  # PyTorch's

    def numpy(self, *, force: bool = False) -> Any:
        """Return the values as an array that cannot be written, since that would change nothing.

        Args:
            force: also of a tensor that requires a gradient or is on another device.
        """
        array = Tensor.numpy(self, force=force)
        array.flags.writeable = False
        return array

    @property
    def _is_param(self) -> bool:
        return False

    @_is_param.setter
    def _is_param(self, value: bool) -> None:
        # torch.nn.Parameter(shown) marks what detach() returned; it is to be a plain parameter.
        _let_go(self, nn.Parameter if value else Tensor)

    @property
    def _is_buffer(self) -> bool:
        return False

    @_is_buffer.setter
    def _is_buffer(self, value: bool) -> None:
        _let_go(self, Tensor)
        self._is_buffer = value

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
    """Shown values that functions can write into, since they carry no gradient: looked at last."""

    def __del__(self) -> None:
        """Note a write that no method of the tensor saw."""
        version = self._tersely_version
        if version is not None and self._version != version.number:
            note_lost_write(*self._tersely_of)
            version.number = self._version


def show(module: nn.Module, name: str, value: Tensor) -> None:
    """Let the writes into a computed tensor act on its parameter.

    Args:
        module: the instrumented module.
        name: the parameter or buffer.
        value: what was computed of it just now; it gets another class.
    """
    if value.requires_grad:
        value.__class__ = Shown
        value._tersely_of = (module, name)  # type: ignore[attr-defined]  # of its class since now
        return
    version = None if value.is_inference() else Version(value._version)
    value.__class__ = WatchedShown
    value._tersely_of = (module, name)  # type: ignore[attr-defined]  # of its class since now
    value._tersely_version = version  # type: ignore[attr-defined]  # of its class since now


_DATA: Any = Tensor.data
_GRAD: Any = Tensor.grad
_REQUIRES_GRAD: Any = Tensor.requires_grad


def _let_go(shown: Shown, cls: type[Tensor]) -> None:
    for name in [name for name in shown.__dict__ if name.startswith("_tersely_")]:
        del shown.__dict__[name]
    shown.__class__ = cls  # type: ignore[assignment]  # all of them have one layout


@contextmanager
def _as_plain(shown: Shown) -> Iterator[None]:
    cls, kept = type(shown), dict(shown.__dict__)
    _let_go(shown, Tensor)
    try:
        yield
    finally:
        shown.__class__ = cls
        shown.__dict__.update(kept)


def _raw(shown: Shown) -> Tensor:
    return raw_of(*shown._tersely_of, shown._tersely_steps)


def _refresh(shown: Shown) -> None:
    """Let a tensor that the user keeps show what its parameter is since the write."""
    with torch.inference_mode() if shown.is_inference() else torch.no_grad():
        value = computed_again(*shown._tersely_of, shown._tersely_steps)
        if value.shape != shown.shape:
            return
        is_data = any(step.name == "data" for step in shown._tersely_steps)
        Tensor.copy_(_DATA.__get__(shown) if is_data else shown, value)
        if shown._tersely_version is not None:
            shown._tersely_version.number = shown._version


def _alias(shown: Shown, result: Tensor, step: Step, *, has_own_version: bool = False) -> Tensor:
    """Let the writes into an alias or view act on the parameter's."""
    cls = type(shown)
    version = shown._tersely_version
    if has_own_version:
        cls = WatchedShown
        version = None if result.is_inference() else Version(result._version)
    result.__class__ = cls
    alias = cast("Shown", result)
    alias._tersely_of = shown._tersely_of
    alias._tersely_steps = (*shown._tersely_steps, step)
    if version is not None:
        alias._tersely_version = version
    return alias


def _is_view_of(result: object, shown: Shown) -> bool:
    if type(result) is not Tensor:
        return False
    if result.is_inference():
        return bool(result.untyped_storage()._cdata == shown.untyped_storage()._cdata)
    return result._is_view()


def _assign(shown: Shown, value: Tensor) -> None:
    raw = _raw(shown)
    if value.shape != raw.shape:
        module, name = shown._tersely_of
        raise SessionError(
            f"{full_name(module, name)}.data: a tensor of shape {list(value.shape)} is assigned, "
            f"and the session was attached to one of shape {list(raw.shape)}; change shapes before "
            f"tersely.attach(), or with session.shrink()",
            target=full_name(module, name),
        )
    if type(value) in (Shown, WatchedShown) and _is_whole(value):
        # ``weight.data += 1`` assigns what it has written, and two targets are tied by their data.
        raw.data = _raw(cast("Shown", value)).data
    else:
        with torch.no_grad():
            raw.data = merged(_DATA.__get__(shown), value, raw.data)
    _refresh(shown)


def _is_whole(shown: Any) -> bool:
    return all(step.name in ("data", "detach") for step in shown._tersely_steps)


def _writing(name: str) -> Callable[..., Any]:
    original = getattr(Tensor, name)
    is_operator = name.startswith("__i")

    def write(self: Shown, *args: Any, **kwargs: Any) -> Any:
        raw = _raw(self)
        original(raw, *args, **kwargs)
        _refresh(self)
        # ``layer.weight += 1`` assigns what comes back, and a module takes a parameter only.
        return raw if is_operator and not self._tersely_steps else self

    return write


def _copying(self: Shown, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    raw = _raw(self)
    if not torch.is_grad_enabled() or not value.requires_grad:
        value = merged(Tensor.detach(self), value, raw.detach())
    raw.copy_(value, *args, **kwargs)
    _refresh(self)
    return self


def _setting(self: Shown, index: Any, value: Any) -> None:
    _raw(self)[index] = value
    _refresh(self)


def _viewing(name: str) -> Callable[..., Any]:
    original = getattr(Tensor, name)

    def view(self: Shown, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        if isinstance(result, (tuple, list)):
            return type(result)(
                _alias(self, one, Step(name, args, kwargs, index))
                if _is_view_of(one, self)
                else one
                for index, one in enumerate(result)
            )
        if not _is_view_of(result, self):
            return result
        return _alias(self, result, Step(name, args, kwargs))

    return view


def _viewing_attribute(name: str) -> property:
    attribute: Any = getattr(Tensor, name)

    def view(self: Shown) -> Tensor:
        result: Tensor = attribute.__get__(self)
        return _alias(self, result, Step(name)) if _is_view_of(result, self) else result

    return property(view)


def _reshaping(name: str) -> Callable[..., Any]:
    original = getattr(Tensor, name)

    def reshape(self: Shown, *args: Any, **kwargs: Any) -> Tensor:
        if not self._tersely_steps:
            module, parameter = self._tersely_of
            raise SessionError(
                f"{full_name(module, parameter)}.{name}() would give the parameter another shape "
                f"or memory while a session is attached; do it before tersely.attach()",
                target=full_name(module, parameter),
            )
        # Of an alias it changes the alias alone, with plain tensors too.
        original(self, *args, **kwargs)
        if name in tensor_methods.VIEWS_IN_PLACE:
            self._tersely_steps = (*self._tersely_steps, Step(name[:-1], args, kwargs))
            if self._tersely_version is not None:
                self._tersely_version.number = self._version
        else:
            _let_go(self, Tensor)
        return self

    return reshape


def _complete(cls: Any) -> None:
    """Give the class every method of tensors that writes, views or reshapes."""
    for name in (*tensor_methods.writes(), *tensor_methods.OPERATORS):
        setattr(cls, name, _writing(name))
    for name in (*tensor_methods.VIEWS_IN_PLACE, *tensor_methods.RESIZES):
        setattr(cls, name, _reshaping(name))
    for name in tensor_methods.VIEWS:
        setattr(cls, name, _viewing(name))
    for name in tensor_methods.VIEW_ATTRIBUTES:
        setattr(cls, name, _viewing_attribute(name))
    cls.copy_ = _copying
    cls.__setitem__ = _setting


_complete(Shown)
