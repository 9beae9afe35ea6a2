"""What one module does to its tensors: transforms on parameters, inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs
from torch import Tensor, nn


class Transform(Protocol):
    """One step on one tensor, such as a mask."""

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the processed tensor; state is read from the module's buffers.

        Args:
            module: the module that owns the target.
            value: the tensor, which must not be modified.
        """
        ...


@attrs.frozen
class InputSite:
    """Where an input target is among forward's arguments.

    Attributes:
        target: the target's name, for errors.
        index: its position, or None when it has none or is the first tensor.
        name: its argument name, or None.
        order: the argument names in signature order, to find the first tensor among keywords.
        default: the argument's default when that is a tensor, else None.
    """

    target: str
    index: int | None
    name: str | None
    order: tuple[str, ...] = ()
    default: Tensor | None = attrs.field(default=None, eq=False)


@attrs.frozen
class OutputSite:
    """Where an output target is in what forward returns.

    Attributes:
        target: the target's name, for errors.
        key: an index, a dictionary key, or None for the output itself (or its element 0).
    """

    target: str
    key: int | str | None


@attrs.frozen
class Instruments:
    """All transforms of one module; modules alike share one object.

    Attributes:
        parameters: parameter or buffer name -> its transforms, in order.
        inputs: input sites with their transforms.
        outputs: output sites with their transforms.
    """

    parameters: Mapping[str, tuple[Transform, ...]] = attrs.field(factory=dict)
    inputs: Mapping[InputSite, tuple[Transform, ...]] = attrs.field(factory=dict)
    outputs: Mapping[OutputSite, tuple[Transform, ...]] = attrs.field(factory=dict)

    @property
    def has_sites(self) -> bool:
        """Whether inputs or outputs are processed."""
        return bool(self.inputs or self.outputs)
