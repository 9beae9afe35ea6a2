"""The parameter that a shown tensor was computed from, and the same alias or view of it."""

from __future__ import annotations

from typing import Any, cast

import attrs
import torch
from torch import Tensor, nn

from tersely.errors import SessionError
from tersely.instrument.names import INSTRUMENTS, TAP, full_name


@attrs.frozen
class Step:
    """How an alias or a view was made of a tensor.

    Attributes:
        name: the method or attribute.
        args: its positional arguments.
        kwargs: its keyword arguments.
        index: which of the results, or None where there is one.
    """

    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = attrs.field(factory=dict)
    index: int | None = None

    def __call__(self, value: Tensor) -> Tensor:
        """Return the alias or view of another tensor.

        Args:
            value: the tensor.
        """
        found = getattr(value, self.name)
        if callable(found):
            found = found(*self.args, **self.kwargs)
        return cast("Tensor", found if self.index is None else found[self.index])


def raw_of(module: nn.Module, name: str, steps: tuple[Step, ...]) -> Tensor:
    """Return a parameter or buffer, or the alias or view of it that some steps make.

    Args:
        module: the module.
        name: the parameter or buffer.
        steps: how the alias or view was made.

    Raises:
        SessionError: the layer has none; what was shown comes from a folded batch norm.
    """
    value: Tensor | None = module._parameters.get(name)
    if value is None:
        value = module._buffers.get(name)
    if value is None:
        raise SessionError(
            f"{full_name(module, name)} is written, and the layer has none: what it shows comes "
            "from the batch norm that is folded into it; write to the batch norm's bias",
            target=full_name(module, name),
        )
    for step in steps:
        value = step(value)
    return value


def no_parameter(module: nn.Module, name: str) -> SessionError:
    """Return the error for what is shown, which another module takes for a parameter.

    Args:
        module: the module that shows it.
        name: the parameter or buffer.
    """
    name = full_name(module, name)
    return SessionError(
        f"what {name} shows is computed while a session is attached, so it cannot be assigned to a "
        "module as a parameter; tie or reparametrize modules before tersely.attach(), or after "
        "session.detach()",
        target=name,
    )


def swapped(module: nn.Module, name: str) -> SessionError:
    """Return the error for what is shown, which `torch.utils.swap_tensors` is to swap.

    Args:
        module: the module that shows it.
        name: the parameter or buffer.
    """
    name = full_name(module, name)
    return SessionError(
        f"what {name} shows is computed while a session is attached, so a tensor that is swapped "
        "with it would be lost; assign the other parameter to the module, or its values to "
        f"{name}.data",
        target=name,
    )


def computed_again(module: nn.Module, name: str, steps: tuple[Step, ...]) -> Tensor:
    """Return what a target shows now, without moving what follows training.

    Args:
        module: the module, which may be instrumented no longer.
        name: the parameter or buffer.
        steps: how the alias or view was made.
    """
    value = raw_of(module, name, ())
    instruments = module.__dict__.get(INSTRUMENTS)
    transforms = () if instruments is None else instruments.parameters.get(name, ())
    for transform in transforms:
        if transform.place < TAP:
            value = getattr(transform, "settled", transform)(module, value)
    for step in steps:
        value = step(value)
    return value


def merged(shown: Tensor, value: Any, raw: Tensor) -> Any:
    """Return what to assign: where a value equals what is shown, the parameter's own value stays.

    Code such as ``weight.data = weight.data.clamp(-1, 1)`` computes from the shown values. The
    rounded ones would else replace what trains, and masked ones what may grow back.

    Args:
        shown: what the target shows.
        value: what is assigned; anything that `torch.Tensor.copy_` takes.
        raw: the parameter's values.
    """
    if not isinstance(value, Tensor) or value.is_meta or raw.is_meta:
        return value
    if (value.shape, value.dtype, value.device) != (raw.shape, raw.dtype, raw.device):
        return value
    stays = (value == shown) & (value != raw)
    return torch.where(stays, raw, value) if stays.any() else value
