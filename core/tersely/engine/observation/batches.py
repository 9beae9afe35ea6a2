"""Batches: how a model is called with one, and those kept until the model is compressed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor, nn

from tersely.contracts.calling import call_model
from tersely.engine.observation.padding import PaddingMask, leaving_out, mask_of
from tersely.errors import CalibrationError
from tersely.planning.selecting.classes import original_class

Forward: TypeAlias = Callable[[nn.Module, Any], object]


@attrs.frozen(eq=False)
class Batches:
    """Calibration batches that are kept until the model is compressed.

    Attributes:
        batches: what to run.
        forward: called as forward(model, batch), or None for `call_model`.
        mask: how to find which positions of a batch are data; see `mask_of`.
    """

    batches: tuple[Any, ...]
    forward: Forward | None
    mask: PaddingMask | None = None

    def run(self, model: nn.Module) -> None:
        """Run all batches through the model."""
        for batch in self.batches:
            run_batch(model, batch, forward=self.forward, mask=self.mask)


def run_batch(
    model: nn.Module, batch: Any, *, forward: Forward | None, mask: PaddingMask | None
) -> None:
    """Run a batch; whatever observes it leaves its padding out.

    Args:
        model: the model to run.
        batch: the batch.
        forward: called as forward(model, batch), or None for `call_model`.
        mask: how to find which positions of the batch are data; see `mask_of`.
    """
    with leaving_out(mask_of(batch, mask)):
        (call_observed if forward is None else forward)(model, batch)


def call_observed(model: nn.Module, batch: Any) -> object:
    """Call a model with a calibration batch, as `call_model` does.

    Args:
        model: the model to call.
        batch: a tensor, a list or tuple, or a mapping.

    Raises:
        CalibrationError: the model does not take what the batch holds.
    """
    try:
        return call_model(model, batch)
    except TypeError as error:
        taken = inspect.signature(original_class(type(model)).forward)
        try:
            call_model(partial(taken.bind, model), batch)
        except TypeError as misfit:
            raise CalibrationError(_misfit(batch, taken, misfit)) from error
        raise


def _misfit(batch: Any, taken: inspect.Signature, misfit: TypeError) -> str:
    is_mapping = isinstance(batch, Mapping)
    kind = "mapping" if is_mapping else type(batch).__name__
    first = "**{'inputs': batch['inputs']}" if is_mapping else "batch[0]"
    labels = "'labels'" if is_mapping else "(inputs, labels)"
    return (
        f"a batch is a {kind} of {len(batch)} values, and the model's forward takes {taken}: "
        f"{misfit}; a list or tuple is spread over its arguments, a mapping over its keywords. If "
        f"the batch holds {labels}, give forward=lambda model, batch: model({first}), or write "
        "'labels: true' under 'data' in a job"
    )


def first_sample(batch: Any) -> Any:
    """Return the first sample of a batch, or None where its tensors do not say what a sample is.

    Args:
        batch: a tensor, a list or tuple, or a mapping, as in `call_model`.
    """
    keys = list(batch) if isinstance(batch, Mapping) else None
    values = list(batch.values()) if isinstance(batch, Mapping) else _listed(batch)
    lengths = {value.shape[:1] for value in values if isinstance(value, Tensor)}
    others = [value for value in values if not isinstance(value, Tensor)]
    if len(lengths) != 1 or () in lengths or not all(isinstance(one, _PLAIN) for one in others):
        return None
    cut = [value[:1] if isinstance(value, Tensor) else value for value in values]
    return tuple(cut) if keys is None else dict(zip(keys, cut, strict=True))


def _listed(batch: Any) -> list[Any]:
    return list(batch) if isinstance(batch, (list, tuple)) else [batch]


_PLAIN = (bool, int, float, str, type(None))
"""Values of a batch that belong to all of its samples."""


def to_device(value: Any, device: torch.device) -> Any:
    """Return a batch with its tensors on a device.

    Args:
        value: a tensor, or tuples, lists and mappings of values.
        device: where to.
    """
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(to_device(one, device) for one in value)
    if isinstance(value, (list, tuple)):
        return type(value)(to_device(one, device) for one in value)
    if isinstance(value, dict):
        return {key: to_device(one, device) for key, one in value.items()}
    return value
