"""Embeddings with ``max_norm``: PyTorch shortens looked-up rows in the weight itself.

It writes into the tensor that forward reads, which is computed for a target. The rows of the
parameter are therefore shortened first, so that those that are looked up fit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from tersely.instrument.names import INSTRUMENTS, LOST, MASK
from tersely.instrument.shown.lost_writes import need_no_lost_write

WEIGHT = "weight"
_SLACK = 1e-7
"""What PyTorch adds to a norm before it divides by it."""

Computed: TypeAlias = Callable[[nn.Module, str], Tensor | None]


def limited_forward(
    cls: type[nn.Module], original: Callable[..., Any], computed: Computed
) -> Callable[..., Any]:
    """Return the forward for a class whose weight is a target.

    Args:
        cls: the user's class.
        original: its forward so far.
        computed: what computes a target.

    Returns:
        The same forward, unless it is the one of PyTorch's embeddings.
    """
    own: Any = cls
    if own.forward is nn.Embedding.forward:
        return _embedding(original, computed)
    if own.forward is nn.EmbeddingBag.forward:
        return _embedding_bag(original, computed)
    return original


def _is_limited(module: Any) -> bool:
    instruments = module.__dict__.get(INSTRUMENTS)
    is_target = instruments is not None and WEIGHT in instruments.parameters
    return is_target and module.max_norm is not None


def _embedding(original: Callable[..., Tensor], computed: Computed) -> Callable[..., Tensor]:
    @functools.wraps(original)
    def forward(self: Any, input: Tensor) -> Tensor:
        if not _is_limited(self):
            return original(self, input)
        shorten_rows(self, input)
        weight: Any = computed(self, WEIGHT)
        return functional.embedding(
            input,
            weight,
            self.padding_idx,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.sparse,
        )

    return forward


def _embedding_bag(original: Callable[..., Tensor], computed: Computed) -> Callable[..., Tensor]:
    @functools.wraps(original)
    def forward(
        self: Any,
        input: Tensor,
        offsets: Tensor | None = None,
        per_sample_weights: Tensor | None = None,
    ) -> Tensor:
        if not _is_limited(self):
            return original(self, input, offsets, per_sample_weights)
        shorten_rows(self, input)
        weight: Any = computed(self, WEIGHT)
        return functional.embedding_bag(
            input,
            weight,
            offsets,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.mode,
            self.sparse,
            per_sample_weights,
            self.include_last_offset,
            self.padding_idx,
        )

    return forward


@torch.no_grad()
def shorten_rows(module: Any, indices: Tensor) -> None:
    """Shorten the rows of an embedding's parameter that, masked, are longer than ``max_norm``.

    Args:
        module: an instrumented embedding with ``max_norm``.
        indices: the rows that are looked up, integers of any shape; other rows stay.

    Raises:
        SessionError: something was written into what the weight showed.
    """
    if LOST in module.__dict__:
        need_no_lost_write(module)
    raw = module._parameters[WEIGHT]
    masked = raw
    for transform in module.__dict__[INSTRUMENTS].parameters[WEIGHT]:
        if transform.place == MASK:
            masked = transform(module, masked)
    rows = indices.flatten()
    norms = torch.linalg.vector_norm(masked[rows], ord=module.norm_type, dim=1)
    factors = torch.where(norms > module.max_norm, module.max_norm / (norms + _SLACK), 1.0)
    # Earlier calls of this step keep what they need for backward, as in PyTorch's own embedding.
    raw.data.mul_(raw.new_ones(len(raw), 1).index_put_((rows,), factors.to(raw.dtype)[:, None]))
