"""Flow: the labels and values of one tensor of a program, and the state of the walk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor
from torch.fx import Node

from tersely.shrinking.graph.labels import Labels, Layer, reduced

_SMALL = 1 << 22
"""The most elements of a tensor computed from weights whose values are examined."""

_AT_ONCE = 1 << 20
"""The elements of a weight that are examined at once: all of a large one would be a copy."""


@attrs.frozen(eq=False)
class Flow:
    """The labels and values of one tensor.

    Attributes:
        shape: its shape.
        layers: the labels of its elements; none if nothing of it can be removed.
        constant: float64, NaN where the value depends on the input; broadcasts to the tensor.
            None if nothing is known.
        read: returns all masked values, for weights and tensors computed from them.
        name: the parameter or buffer, if it is one, unchanged.
        read_rows: returns some rows of a parameter or buffer.
    """

    shape: tuple[int, ...]
    layers: tuple[Layer, ...] = ()
    constant: Tensor | None = None
    read: Callable[[], Tensor] | None = None
    name: str | None = None
    read_rows: Callable[[slice], Tensor] | None = None

    @property
    def ndim(self) -> int:
        """The tensor's number of dimensions."""
        return len(self.shape)

    def values(self) -> Tensor:
        """Return all values, of a tensor that can be read."""
        if self.read is None:
            raise TypeError("values that depend on the input cannot be read")
        return self.read()

    def runs(self) -> Iterator[Tensor]:
        """Yield all values in runs of rows, of a tensor that can be read; few rows at once."""
        if self.read_rows is None:
            yield self.values()
            return
        at_once = max(1, _AT_ONCE // max(1, _size(self.shape[1:])))
        for start in range(0, max(1, self.shape[0]), at_once):
            yield self.read_rows(slice(start, start + at_once))

    def known(self) -> Tensor:
        """Return the constant, or one NaN that broadcasts."""
        if self.constant is not None:
            return self.constant
        if self.read is not None and _size(self.shape) <= _SMALL:
            values = self.read()
            if not values.is_complex():
                return values.to(torch.float64)
        return torch.full((1,) * self.ndim, torch.nan, dtype=torch.float64)


@attrs.frozen(eq=False)
class Absorbed:
    """What a reader's bias takes over when positions that it reads are removed.

    Attributes:
        bias: name of the bias.
        weight: name of the weight.
        labels: one for each of the weight's input positions.
        values: the constants at the positions, float64; zero or NaN where there is none.
        shares: what each position adds to the bias, float64, shape (outputs, positions).
    """

    bias: str
    weight: str
    labels: Layer
    values: Tensor
    shares: Tensor

    def count(self, gone: Tensor) -> int:
        """Return the number of non-zero constants that are taken over.

        Args:
            gone: the positions that are removed, bool.
        """
        return int((self.values[gone].nan_to_num(0.0) != 0).sum())


@attrs.frozen(eq=False)
class Read:
    """What one call of a reader that has a bias reads.

    Attributes:
        weight: name of its weight; None where forward computes it.
        labels: one for each position.
        values: the constants at the positions, float64; NaN where there is none, zero where the
            weight does not use them.
    """

    weight: str | None
    labels: Layer
    values: Tensor

    @property
    def constant(self) -> Tensor:
        """The positions where a non-zero constant is read."""
        return self.values.nan_to_num(0.0) != 0


@attrs.frozen(eq=False)
class Seen:
    """What a reader finds at each position.

    Attributes:
        what: the reader's name.
        labels: one for each position.
        values: the constants that the positions hold, float64; NaN where none is held, zero where
            the weight makes no use of them.
    """

    what: str
    labels: Layer
    values: Tensor


class Source(Protocol):
    """The source of parameters' values for the walk.

    Attributes:
        is_rounded: whether forward rounds weights, inputs or outputs to grids.
    """

    is_rounded: bool

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """Return a masked parameter or buffer, or some of its rows."""
        ...

    def dense(self, name: str) -> Tensor:
        """Return a parameter or buffer as training moves it, without its mask."""
        ...

    def kept(self, name: str) -> Tensor | None:
        """Return what a mask keeps (bool, the parameter's shape), or None without a mask."""
        ...


class Trace:
    """The state and result of a walk over a program (mutable: filled in one walk).

    Attributes:
        labels: all labels and what ties them.
        flows: node -> what is known of its tensor, or of each of its tensors.
        roots: parameter or buffer -> its labels.
        absorbed: the constants that biases take over.
        makers: weight -> the labels of its outputs.
        reads: bias -> the reads of each call that adds it.
        seen: what each reader finds, in the order of the walk.
        differs_in_training: whether a batch norm makes another constant in training.
        used: weight -> the kernels that are not all zero, bool, kept during the walk.
        scored: product of activations, and what is made of it -> the labels that it was summed
            over; noted without values alone.
        repeated: tensor that is the same all along a dimension, of which copies go one by one ->
            that dimension.
        sized: tensors made of numbers that forward counts, as ``arange`` of a length.
        source: values of parameters.
        has_values: whether values are examined; otherwise only labels are collected.
        elsewhere: the same as flows, for programs of other sizes than the example's.
        is_elsewhere: whether the walk is in a program of other sizes than the example's.
        is_training: whether constants are those of training, after batch norms.
        is_approximate: whether to remove constants that no bias takes over exactly.
    """

    def __init__(
        self,
        source: Source,
        *,
        labels: Labels | None = None,
        is_training: bool = False,
        is_approximate: bool = False,
    ) -> None:
        self.elsewhere: dict[Node, Flow | tuple[Flow, ...]] = {}
        self.is_elsewhere = False
        self.is_training = is_training
        self.is_approximate = is_approximate
        self.labels = labels or Labels()
        self.has_values = labels is None
        self.flows: dict[Node, Flow | tuple[Flow, ...]] = {}
        self.roots: dict[str, Flow] = {}
        self.absorbed: list[Absorbed] = []
        self.makers: dict[str, Layer] = {}
        self.reads: dict[str, list[Read]] = {}
        self.seen: list[Seen] = []
        self.differs_in_training = False
        self.used: dict[str | None, Tensor] = {}
        self.scored: dict[Any, Layer] = {}
        self.repeated: dict[Node, int] = {}
        self.sized: set[Node] = set()
        self.source = source

    def flow(self, argument: Any) -> Flow | None:
        """Return the flow of an operator's argument; None if it is not a tensor."""
        found = self.flows.get(argument) if isinstance(argument, Node) else None
        return found if isinstance(found, Flow) else None

    def tensor(self, argument: Any) -> Flow:
        """Return the flow of an argument that is a tensor."""
        found = self.flow(argument)
        if found is None:
            raise TypeError(f"{argument} is not a tensor")
        return found

    def root(self, name: str, shape: tuple[int, ...]) -> Flow:
        """Return the labels of a parameter or buffer, created on first use."""
        if name not in self.roots:
            layers = tuple(
                self.labels.new([size if d == dim else 1 for d in range(len(shape))])
                for dim, size in enumerate(shape)
                if size > 1 and name not in self.labels.unlabelled
            )
            self.roots[name] = Flow(
                shape,
                layers,
                read=lambda: self.source.read(name).cpu(),
                name=name,
                read_rows=lambda rows: self.source.read(name, rows).cpu(),
            )
        return self.roots[name]

    def doubt(self, flow: Flow, reason: str) -> None:
        """Keep all of a tensor, since it is not known what belongs together."""
        for layer in flow.layers:
            self.labels.doubt(layer, reason)

    def pin(self, flow: Flow, reason: str, dims: tuple[int, ...] | None = None) -> None:
        """Keep all of a tensor, or what varies along dimensions."""
        for layer in flow.layers:
            if dims is None or any(layer.shape[dim] > 1 for dim in dims):
                self.labels.pin(layer, reason)


def aligned(layer: Tensor, ndim: int) -> Tensor:
    """Return a layer or constant with as many dimensions as the tensor that it broadcasts to.

    Args:
        layer: the layer.
        ndim: how many.
    """
    return layer.reshape((1,) * (ndim - layer.ndim) + tuple(layer.shape))


def settle(constant: Tensor | None) -> Tensor | None:
    """Return a constant in its smallest form; None when it is unknown all over.

    Args:
        constant: float64, or None.
    """
    if constant is None:
        return None
    small = reduced(constant.to(torch.float64))
    return None if bool(small.isnan().all()) else small


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
