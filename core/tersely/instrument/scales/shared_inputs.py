"""Several inputs that are one tensor, such as those of query, key and value: processed once.

What was found of the tensor last is remembered, by weak references: nothing of a forward is kept
alive. Without gradients no graph holds what a tensor became; it then lives until its tensor dies or
the next one comes. A tensor that was written to, whose ``data`` was assigned, that comes on another
CUDA stream, or whose scale differs in one bit is processed anew. So is one that comes to the same
module again: another forward may have begun, and methods of `Tensor.data` and NumPy write into
tensors without leaving a trace.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import ReferenceType, ref

import attrs
import torch
from torch import Tensor, nn
from torch.utils.weak import TensorWeakRef


class Extent(NamedTuple):
    """The range of the values of one call, over all processes; a tuple, which compilers can make.

    Attributes:
        low: the smallest finite value of each block, or infinity.
        high: the largest, or minus infinity.
        is_strange: whether values of this process are not finite.
        is_finite: whether it is known that low and high are.
        is_padded: whether some values were left out because they are padding.
    """

    low: Tensor
    high: Tensor
    is_strange: bool
    is_finite: bool = False
    is_padded: bool = False


@attrs.frozen(eq=False)
class _Seen:
    """A tensor as it was: itself, its memory, how often it was written to, its stream and readers.

    Of readers only identities are kept: one that is gone keeps another from sharing at most.
    """

    tensor: TensorWeakRef
    memory: tuple[object, ...]
    version: int
    stream: object
    readers: set[int]

    @classmethod
    def of(cls, module: nn.Module, tensor: Tensor) -> _Seen:
        return cls(
            TensorWeakRef(tensor), _memory(tensor), tensor._version, _stream(tensor), {id(module)}
        )

    def is_of(self, module: nn.Module, tensor: Tensor) -> bool:
        """Tell whether a tensor is this one, unchanged, on the same stream, and new to a module."""
        return (
            self.tensor() is tensor
            and self.version == tensor._version
            and self.memory == _memory(tensor)  # assigned to ``data``, it is other memory
            and self.stream == _stream(tensor)
            and id(module) not in self.readers
        )


@attrs.frozen(eq=False)
class _Extents:
    seen: _Seen
    is_data: TensorWeakRef | None
    is_channels_first: bool
    extent: Extent


@attrs.frozen(eq=False)
class _Quantized:
    seen: _Seen
    grid: object
    scale: Tensor
    zero_point: Tensor | None
    versions: tuple[int, ...]
    result: TensorWeakRef
    result_version: int

    def has(self, scale: Tensor, zero_point: Tensor | None) -> bool:
        """Tell whether a scale and zero point are these, bit for bit."""
        if zero_point is None or self.zero_point is None:
            return zero_point is self.zero_point and torch.equal(scale, self.scale)
        return torch.equal(scale, self.scale) and torch.equal(zero_point, self.zero_point)


class SharedInputs:
    """What was found of the last input of a stage; mutable, because every call replaces it.

    Each of the two is one immutable value, which threads replace as a whole. Copies and pickles of
    a model come without them.
    """

    def __init__(self) -> None:
        self._extents: _Extents | None = None
        self._quantized: _Quantized | None = None
        self._held: tuple[ReferenceType[Tensor], Tensor] | None = None

    def extent(
        self,
        module: nn.Module,
        value: Tensor,
        is_data: Tensor | None,
        *,
        is_channels_first: bool,
    ) -> Extent | None:
        """Return the range of a tensor if the last one was its, else None.

        Args:
            module: the module whose input it is.
            value: the input.
            is_data: bool, shape (batch, positions), which positions are data; None for all.
            is_channels_first: whether the module has its channels in dimension 1.
        """
        last = self._extents
        if last is None or not last.seen.is_of(module, value):
            return None
        before = None if last.is_data is None else last.is_data()
        is_same = before is is_data and (last.is_data is None) == (is_data is None)
        if not is_same or last.is_channels_first != is_channels_first:
            return None
        last.seen.readers.add(id(module))
        return last.extent

    def keep_extent(
        self,
        module: nn.Module,
        value: Tensor,
        is_data: Tensor | None,
        extent: Extent,
        *,
        is_channels_first: bool,
    ) -> None:
        """Remember the range of a tensor, with arguments as `extent` has them."""
        mask = None if is_data is None else TensorWeakRef(is_data)
        self._extents = _Extents(_Seen.of(module, value), mask, is_channels_first, extent)

    def quantized(
        self,
        module: nn.Module,
        value: Tensor,
        grid: object,
        scale: Tensor,
        zero_point: Tensor | None,
    ) -> Tensor | None:
        """Return what a tensor became if it was the last one and was quantized alike, else None.

        Args:
            module: the module whose input it is.
            value: the input.
            grid: the values it can take.
            scale: shape (), the scale in force.
            zero_point: shape (), or None for zero.
        """
        last = self._quantized
        if last is None or not last.seen.is_of(module, value):
            self._held = None  # before the next one needs memory
            return None
        if last.grid != grid:
            return None
        result: Tensor | None = last.result()
        if result is None or result._version != last.result_version:
            return None
        if last.versions != _versions(last.scale, last.zero_point):
            return None  # the scale that gave the result has moved
        if not last.has(scale, zero_point):
            return None
        last.seen.readers.add(id(module))
        return result

    def keep_quantized(
        self,
        module: nn.Module,
        value: Tensor,
        grid: object,
        scale: Tensor,
        zero_point: Tensor | None,
        result: Tensor,
    ) -> None:
        """Remember what a tensor became, with arguments as `quantized` has them."""
        self._quantized = _Quantized(
            _Seen.of(module, value),
            grid,
            scale,
            zero_point,
            _versions(scale, zero_point),
            TensorWeakRef(result),
            result._version,
        )
        self._held = None
        if not torch.is_grad_enabled():
            self._held = (ref(value, self._let_go), result)

    def _let_go(self, dead: ReferenceType[Tensor]) -> None:
        held = self._held
        if held is not None and held[0] is dead:
            self._held = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_extents": None, "_quantized": None, "_held": None}


def is_shareable(value: Tensor, *others: Tensor | None) -> bool:
    """Tell whether a tensor can be recognized when it comes again.

    Args:
        value: an input.
        *others: what its result depends on too.
    """
    # What compiles or transforms a function follows no references, and a result from before a trace
    # or a graph would be a constant in it.
    if torch.compiler.is_compiling() or type(value) is not Tensor or value.is_meta:
        return False
    if torch._C._are_functorch_transforms_active() or torch._C._get_tracing_state() is not None:
        return False
    if value.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    # Tensors of inference mode have no version.
    if torch.is_inference_mode_enabled():
        return False
    return not any(one is not None and one.is_inference() for one in (value, *others))


def _memory(tensor: Tensor) -> tuple[object, ...]:
    place = tensor.data_ptr() if tensor.layout is torch.strided else None
    return place, tensor.shape, tensor.stride() if place is not None else None


def _versions(*tensors: Tensor | None) -> tuple[int, ...]:
    return tuple(one._version for one in tensors if one is not None)


def _stream(tensor: Tensor) -> object:
    return torch.cuda.current_stream(tensor.device) if tensor.is_cuda else None
