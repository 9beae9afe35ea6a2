"""What one module does to its tensors: transforms on parameters, inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import attrs
from torch import Tensor, nn

from tersely.arithmetic.reused_memory import Reused
from tersely.instrument.scales.padded import PaddingOfCall


class Transform(Protocol):
    """One step on one tensor, such as a mask.

    Attributes:
        place: which of the steps on the tensor it is, see `tersely.instrument.transforms`.
    """

    @property
    def place(self) -> int:
        """Which of the steps on the tensor it is."""
        ...

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the processed tensor; state is read from the module's buffers.

        Args:
            module: the module that owns the target.
            value: the tensor, which must not be modified.
        """
        ...


class Folding(Protocol):
    """What forward does where other modules are folded into the called one."""

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Run before the module's own forward.

        Args:
            module: the called module.
            args: positional arguments, processed.
            kwargs: keyword arguments, processed.
        """
        ...

    def after(self, output: Any) -> Any:
        """Return what becomes of the module's own output before its output targets.

        Args:
            output: what its own forward returned.
        """
        ...


# Compared by identity: a hash of its own is what torch.compile of some versions cannot follow.
@attrs.frozen(eq=False)
class InputSite:
    """Where an input target is among forward's arguments.

    Attributes:
        target: the target's name, for errors.
        index: its position, or None when it has none or is the first tensor.
        name: its argument name, or None.
        order: the argument names in signature order, to find the first tensor among keywords.
        default: the argument's default when that is a tensor, else None.
        path: the steps from the argument to a nested tensor.
    """

    target: str
    index: int | None
    name: str | None
    order: tuple[str, ...] = ()
    default: Tensor | None = None
    path: tuple[int | str, ...] = ()


@attrs.frozen(eq=False)
class OutputSite:
    """Where an output target is in what forward returns.

    Attributes:
        target: the target's name, for errors.
        key: an index, a dictionary key, or None for the output itself (or its element 0).
        path: the steps from there to a nested tensor.
    """

    target: str
    key: int | str | None
    path: tuple[int | str, ...] = ()


@attrs.frozen
class Instruments:
    """All transforms of one module; similar modules share one object.

    Attributes:
        parameters: parameter or buffer name -> its transforms, in order.
        inputs: input sites with their transforms.
        outputs: output sites with their transforms.
        fold: the modules that are folded into this one while it is simulated, or None.
        is_folded: whether the module is folded into another one and passes its input on.
        has_room: whether a fold may come later.
        padding: what notes the padding of each call, for the model's own forward, or None.
        reused: memory for what a call reads of each parameter, which it processes once however
            often it reads it; None where each read is one of its own.
    """

    parameters: Mapping[str, tuple[Transform, ...]] = attrs.field(factory=dict)
    inputs: Mapping[InputSite, tuple[Transform, ...]] = attrs.field(factory=dict)
    outputs: Mapping[OutputSite, tuple[Transform, ...]] = attrs.field(factory=dict)
    fold: Folding | None = None
    is_folded: bool = False
    has_room: bool = False
    padding: PaddingOfCall | None = None
    reused: Reused | None = attrs.field(default=None, eq=False)

    @property
    def has_sites(self) -> bool:
        """Whether forward itself is processed, not only the parameters it reads."""
        is_folding = self.fold is not None or self.is_folded or self.has_room
        return is_folding or self.padding is not None or bool(self.inputs or self.outputs)
