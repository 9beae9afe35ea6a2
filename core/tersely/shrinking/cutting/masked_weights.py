"""The masked values of a model's parameters, before and after the cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import attrs
import torch
from torch import Tensor

from tersely.engine.state.cutting import Cut
from tersely.errors import SessionError


@attrs.frozen(eq=False)
class Used:
    """How forward changes parameters, besides masking them.

    Attributes:
        values: masked parameters whose values differ in forward -> those values, without masks.
        is_rounded: whether weights, inputs or outputs are rounded to grids.
    """

    values: Mapping[str, Tensor] = attrs.field(factory=dict)
    is_rounded: bool = False


class MaskedWeights:
    """The source of values for the walk: masked parameters.

    Args:
        tensors: parameters and buffers by name.
        kept: the masks of some of them, bool, True = kept, the tensor's shape.
        used: how forward changes them besides.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        kept: Mapping[str, Tensor],
        used: Used,
    ) -> None:
        self._tensors = tensors
        self._kept = kept
        self._used = used.values
        self.is_rounded = used.is_rounded

    def dense(self, name: str) -> Tensor:
        """Return a tensor without its mask."""
        return self._tensors[name].detach()

    def kept(self, name: str) -> Tensor | None:
        """Return what a mask keeps."""
        return self._kept.get(name)

    def need_own(self, bias: str) -> None:
        """Refuse to let a bias take over constants if forward uses other values of it.

        Args:
            bias: its name.

        Raises:
            SessionError: its algorithm multiplies it.
        """
        if bias in self._used:
            raise SessionError(
                f"shrink() cannot let {bias} take constants over, since what its pruning learns "
                "multiplies it; let it follow the mask of its weight, as it does by default",
                target=bias,
            )

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """Return a tensor as its mask leaves it, or some of its rows."""
        values, kept = self._used.get(name, self.dense(name)), self.kept(name)
        if rows is not None:
            values, kept = values[rows], None if kept is None else kept[rows]
        return values if kept is None else torch.where(kept, values, values.new_zeros(()))

    def masked(self) -> Mapping[str, Tensor]:
        """Return all masked tensors as their masks leave them."""
        return Lazily(self._kept, self.read)

    def small(self, cuts: Mapping[str, Cut], totals: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the same of the model that was cut.

        Args:
            cuts: what was cut.
            totals: biases that took constants over, float64, not cut.
        """

        def compute(name: str) -> Tensor:
            cut, kept = cuts.get(name), self.kept(name)
            values = self.dense(name)
            if name in self._used:
                values = self._used[name] if cut is None else cut(self._used[name])
            if name in totals:
                values = totals[name] if cut is None else cut(totals[name])
            if kept is None:
                return values
            kept = kept if cut is None else cut(kept)
            return torch.where(kept, values, values.new_zeros(()))

        return Lazily(dict.fromkeys([*self._kept, *totals]), compute)


class Lazily(Mapping[str, Tensor]):
    """Values by name, each computed when it is taken, since all at once would be a second model."""

    def __init__(self, names: Iterable[str], compute: Callable[[str], Tensor]) -> None:
        self._names = tuple(names)
        self._compute = compute

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._compute(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
