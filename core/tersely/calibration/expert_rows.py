"""Which rows meet which expert's matrix: told by the matrix products that a module computes.

A stack of matrices is found in a product by its memory. What a product shows of experts that lie
in one tensor of shape (experts, outputs, inputs), or (experts, inputs, outputs):

=======================================  ==================================================
product                                  rows of an expert
=======================================  ==================================================
``mm``, ``addmm``, ``linear``, ``mv``    all rows, where the other factor is its matrix
``bmm``, ``baddbmm``                     those of its batch entries, also of gathered copies
any operator with ``offs``               those between two offsets (``grouped_mm``)
=======================================  ==================================================

A product with a part of a matrix counts where the part has the first output and all inputs, so
that a gate and an up projection that are multiplied apart count once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import attrs
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

See: TypeAlias = Callable[[str, int, Tensor], None]
"""Called with a parameter's name, an expert and the rows (rows, inputs) that met its matrix."""

_STACK, _MATRIX = 3, 2
_TWO_FACTORS = {"aten::mm": 0, "aten::addmm": 1, "aten::bmm": 0, "aten::baddbmm": 1}
_VECTORS = {"aten::mv": 0, "aten::addmv": 1}
_COMPOSITE = ("aten::matmul", "aten::einsum", "aten::tensordot")
_GATHERING = ("aten::index", "aten::index_select")


@attrs.frozen(eq=False)
class _Stack:
    """The place of matrices in memory.

    Attributes:
        name: the parameter.
        experts: the expert of each matrix, in their order.
        offset: where the first begins in the memory.
        steps: how far it is to the next matrix, output and input.
        sizes: outputs and inputs.
    """

    name: str
    experts: Tensor
    offset: int
    steps: tuple[int, int, int]
    sizes: tuple[int, int]

    @property
    def length_of_one(self) -> int:
        """How far one matrix reaches from its first element."""
        return 1 + sum((n - 1) * step for n, step in zip(self.sizes, self.steps[1:], strict=True))

    @property
    def length(self) -> int:
        """How far all of them reach."""
        return (len(self.experts) - 1) * self.steps[0] + self.length_of_one


class _Found(NamedTuple):
    """A factor of a product: matrices of a stack.

    Attributes:
        stack: their place in memory.
        first: the index of the first among those of the stack.
        is_from_start: whether it begins with the first output and input.
    """

    stack: _Stack
    first: int
    is_from_start: bool


class Products(TorchDispatchMode):
    """Sees the products of one call of a module; mutable because it learns the places of matrices.

    Args:
        see: what to do with the rows of an expert.
    """

    def __init__(self, see: See) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types for it
        self.see = see
        self.stacks: dict[StorageWeakRef, list[_Stack]] = {}

    def begin(self) -> None:
        """Start watching products."""
        self.__enter__()  # type: ignore[no-untyped-call]  # as above

    def end(self) -> None:
        """Stop watching products."""
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]  # as above

    def add(self, name: str, value: Tensor, *, input_dim: int) -> None:
        """Look for a parameter as the module reads it.

        Args:
            name: the parameter's name.
            value: shape (experts, outputs, inputs), or with outputs and inputs the other way round.
            input_dim: the dimension of inputs, 1 or 2.
        """
        output_dim = 3 - input_dim
        self._remember(
            value,
            _Stack(
                name,
                torch.arange(len(value)),
                int(value.storage_offset()),
                (value.stride(0), value.stride(output_dim), value.stride(input_dim)),
                (value.shape[output_dim], value.shape[input_dim]),
            ),
        )

    def _remember(self, tensor: Tensor, stack: _Stack) -> None:
        if stack.steps[0] < stack.length_of_one:
            return  # nested matrices cannot be distinguished by where they begin
        known = self.stacks.setdefault(_identity(tensor), [])
        if not any(one.name == stack.name and one.offset == stack.offset for one in known):
            known.append(stack)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compute what was asked for, and see what it shows."""
        kwargs = dict(kwargs or {})
        name = func._schema.name
        if name in _COMPOSITE:  # inference mode does not take these apart
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        output = func(*args, **kwargs)
        is_concerned = any(isinstance(one, Tensor) and self._is_known(one) for one in args)
        if is_concerned and not self._see_product(name, func, args, kwargs):
            self._follow_copy(name, args, output)
        return output

    def _is_known(self, tensor: Tensor) -> bool:
        return tensor.ndim in (_MATRIX, _STACK) and self._find(tensor) is not None

    def _find(self, tensor: Tensor) -> _Found | None:
        for stack in self.stacks.get(_identity(tensor), ()):
            distance = int(tensor.storage_offset()) - stack.offset
            if 0 <= distance < stack.length:
                first, rest = divmod(distance, stack.steps[0])
                return _Found(stack, first, rest == 0)
        return None

    def _see_product(
        self, name: str, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> bool:
        names = [one.name for one in func._schema.arguments]
        if "offs" in names:
            given = dict(zip(names, args, strict=False)) | dict(kwargs)
            rows, weight = args[0], args[1]
            if rows.ndim == _MATRIX and weight.ndim == _STACK and given.get("offs") is not None:
                self._see_groups(rows, weight, given["offs"])
            return True
        if name == "aten::linear":
            self._see_pair(args[0].reshape(-1, args[0].shape[-1]), args[1].t())
        elif name in _TWO_FACTORS:
            first, second = args[_TWO_FACTORS[name] :][:2]
            see = self._see_pair if first.ndim == _MATRIX else self._see_batch
            see(first, second)
        elif name in _VECTORS:
            matrix, vector = args[_VECTORS[name] :][:2]
            self._see_pair(matrix, vector[:, None])
        else:
            return False
        return True

    def _see_pair(self, first: Tensor, second: Tensor) -> None:
        for weight, rows, dim in ((second, first, 0), (first, second.t(), 1)):
            found = self._whole_inputs(weight, dim)
            if found is not None:
                self.see(found.stack.name, int(found.stack.experts[found.first]), rows)
                return

    def _see_batch(self, first: Tensor, second: Tensor) -> None:
        for weight, rows, dim in ((second, first, 1), (first, second.transpose(1, 2), 2)):
            found = self._whole_inputs(weight, dim)
            if found is not None:
                for expert, places in self._entries(found, weight):
                    self.see(found.stack.name, expert, rows[places].flatten(0, 1))
                return

    def _see_groups(self, rows: Tensor, weight: Tensor, ends: Tensor) -> None:
        found = self._whole_inputs(weight, 1)
        if found is None:
            return
        start = 0
        for expert, end in zip(self._experts(found, weight).tolist(), ends.tolist(), strict=True):
            if end > start:
                self.see(found.stack.name, expert, rows[start:end])
            start = max(start, end)

    def _whole_inputs(self, weight: Tensor, dim: int) -> _Found | None:
        """Return the place of a factor whose dimension ``dim``, summed over, is that of inputs."""
        found = self._find(weight)
        if found is None or not found.is_from_start:
            return None
        is_along = weight.shape[dim] == 1 or weight.stride(dim) == found.stack.steps[2]
        return found if is_along and weight.shape[dim] == found.stack.sizes[1] else None

    def _experts(self, found: _Found, weight: Tensor) -> Tensor:
        """Return the experts whose matrices a factor has, in order."""
        count = len(weight) if weight.ndim == _STACK else 1
        step = int(weight.stride(0)) // found.stack.steps[0] if count > 1 else 0
        return found.stack.experts[found.first + step * torch.arange(count)]

    def _entries(self, found: _Found, weight: Tensor) -> Iterator[tuple[int, Tensor]]:
        experts = self._experts(found, weight)
        for expert in sorted(set(experts.tolist())):
            yield expert, (experts == expert).nonzero().flatten().to(weight.device)

    def _follow_copy(self, name: str, args: tuple[Any, ...], output: Any) -> None:
        """Remember the place of a copy of matrices: gathered for each row, or of another type."""
        source = next(one for one in args if isinstance(one, Tensor) and self._is_known(one))
        found = self._find(source)
        is_copy = isinstance(output, Tensor) and self._find(output) is None
        if not is_copy or found is None or not found.is_from_start:
            return
        dim = self._input_dim(found, source)
        experts = self._experts(found, source)
        if source.ndim == _STACK and name in _GATHERING:
            index = _index_of(name, args)
            experts = experts if index is None else experts[index.cpu()].reshape(-1)
            is_laid_out = index is not None and output.ndim == index.ndim + _MATRIX
        else:
            is_laid_out = output.shape == source.shape
        if dim is None or not is_laid_out:
            return
        copy = output[None] if output.ndim == _MATRIX else output.flatten(0, -_STACK)
        output_dim = _STACK - dim
        lead = copy.stride(0) if len(copy) > 1 else max(copy.numel(), 1)
        self._remember(
            copy,
            _Stack(
                found.stack.name,
                experts,
                int(copy.storage_offset()),
                (lead, copy.stride(output_dim), copy.stride(dim)),
                (copy.shape[output_dim], copy.shape[dim]),
            ),
        )

    def _input_dim(self, found: _Found, weight: Tensor) -> int | None:
        """Return the dimension of inputs, 1 or 2 of a stack, where a factor has all of them."""
        dims = [
            dim
            for dim in (1, 2)
            if weight.stride(dim - _STACK) == found.stack.steps[2]
            and weight.shape[dim - _STACK] == found.stack.sizes[1]
        ]
        return dims[-1] if dims else None


def _identity(tensor: Tensor) -> StorageWeakRef:
    # A weak reference keeps the identity of a storage from being used again, not its memory.
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]  # as above


def _index_of(name: str, args: tuple[Any, ...]) -> Tensor | None:
    """Return by which numbers an operator gathers matrices along dimension 0, or None."""
    given: list[Any] = [args[2]] if name == "aten::index_select" else list(args[1])
    is_first = len(given) == 1 and (name != "aten::index_select" or args[1] == 0)
    index = given[0]
    is_plain = isinstance(index, Tensor) and index.dtype != torch.bool
    return index if is_first and is_plain else None
