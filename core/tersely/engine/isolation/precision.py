"""The modes of torch in which algorithms compute, whatever modes they are called in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

_DEVICE_TYPES = ("cpu", "cuda", "xpu", "mps")


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Compute in the tensors' own precision inside the block, also under autocast."""
    with contextlib.ExitStack() as stack:
        for device_type in _DEVICE_TYPES:
            if torch.is_autocast_enabled(device_type):
                stack.enter_context(torch.autocast(device_type, enabled=False))
        yield


@contextlib.contextmanager
def no_inference_mode() -> Iterator[None]:
    """Leave inference mode inside the block, where it is on, and gradients as they are.

    Nobody can change a tensor that is made in it, neither training nor tersely.
    """
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


@contextlib.contextmanager
def plain_modes() -> Iterator[None]:
    """Compute in full precision and without inference mode inside the block.

    Scales, masks and weights that are made here can be trained later, which tensors made in
    inference mode cannot.
    """
    with torch.inference_mode(False), full_precision():
        yield
