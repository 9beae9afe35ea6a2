"""Several processes that train one model: what they observed and learned, brought together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

import attrs
import torch
from torch import Tensor, distributed, nn

from tersely.errors import CalibrationError
from tersely.instrument.modules.classes import is_sharded

Value = TypeVar("Value")

_LONGEST = 2000  # characters


def is_distributed() -> bool:
    """Tell whether this process is one of several that work together."""
    return distributed.is_available() and distributed.is_initialized()


@attrs.frozen
class _Failure:
    """What a process sends when it cannot continue.

    Attributes:
        reason: the class and the text of its error.
    """

    reason: str


def gather(own: Value) -> list[Value]:
    """Return the values of all processes; this one's alone if there are no others.

    Args:
        own: this process's value; anything that pickles.

    Raises:
        CalibrationError: another process failed in `failing_together`; names it and its error.
    """
    if not is_distributed():
        return [own]
    everyone = [own] * distributed.get_world_size()
    distributed.all_gather_object(everyone, own)
    for process, said in enumerate(everyone):
        if isinstance(said, _Failure):
            raise CalibrationError(
                f"process {process} of {len(everyone)} failed, so this one cannot continue: "
                f"{said.reason}"
            )
    return everyone


@contextlib.contextmanager
def failing_together(model: nn.Module) -> Iterator[None]:
    """Let work that ends with `gather` fail in every process when it fails in one.

    The others would wait for the one that failed until they time out. Where parameters are sharded
    they already wait inside the model, where nothing reaches them.

    Args:
        model: the model that the work runs.
    """
    try:
        yield
    except Exception as error:
        if is_distributed() and not any(is_sharded(one) for one in model.parameters()):
            reason = f"{type(error).__name__}: {error}"
            with contextlib.suppress(CalibrationError):
                gather(_Failure(reason[:_LONGEST]))
        raise


def summed(tensor: Tensor) -> Tensor:
    """Return a tensor added up over all processes; a copy only where there are several.

    Args:
        tensor: this process's part, of one shape and dtype everywhere.
    """
    if not is_distributed():
        return tensor
    total = tensor.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total


def average_gradients(tensors: Sequence[Tensor]) -> None:
    """Give every process the mean of all processes' gradients, in place.

    A gradient that some processes lack counts as zero there; one that all lack stays None.

    Args:
        tensors: leaves, in the same order everywhere.
    """
    if not is_distributed():
        return
    world = distributed.get_world_size()
    for alike in _alike(tensors):
        # One call for all of them, and with it how many processes have each gradient.
        parts = [torch.zeros_like(one) if one.grad is None else one.grad for one in alike]
        present = torch.tensor([float(one.grad is not None) for one in alike])
        flat = torch.cat([part.flatten() for part in parts] + [present.to(parts[0])])
        distributed.all_reduce(flat)
        sizes = [*(part.numel() for part in parts), len(parts)]
        pieces = torch.split(flat, sizes)
        for one, piece, count in zip(alike, pieces[:-1], pieces[-1].tolist(), strict=True):
            if count:
                one.grad = (piece / world).view_as(one)


def is_equal_everywhere(tensors: Sequence[Tensor]) -> bool:
    """Tell, with the same result in all processes, whether tensors have the same values in all.

    Args:
        tensors: of the same number, order and shapes everywhere.
    """
    if not is_distributed():
        return True
    is_equal = True
    for alike in _alike(tensors):
        flat = torch.cat([one.detach().flatten() for one in alike])
        both = torch.cat([flat, -flat])
        distributed.all_reduce(both, op=distributed.ReduceOp.MAX)
        highest, lowest = both.chunk(2)
        is_equal = is_equal and torch.equal(highest, -lowest)
    return is_equal


def _alike(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    yield from groups.values()
