"""Digests by which a later process knows that a model, batches or plain data are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tersely.json_value import Json

_LENGTH = 16


def digest_of_data(data: Json) -> str:
    """Return the digest of plain data.

    Args:
        data: what JSON can hold; anything else counts by its text.
    """
    text = json.dumps(data, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def digest_of_model(model: nn.Module) -> str:
    """Return the digest of a model's class, and of the names, shapes and values of its tensors.

    Args:
        model: the model.
    """
    digest = hashlib.sha256(type(model).__qualname__.encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        if isinstance(tensor, Tensor):
            _update(digest, tensor)
    return digest.hexdigest()[:_LENGTH]


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the digest of tensors with their names, in any order.

    Args:
        tensors: name -> tensor.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        _update(digest, tensors[name])
    return digest.hexdigest()


def digest_of_batches(batches: Any) -> str:
    """Return the digest of the tensors in batches.

    Args:
        batches: tensors in any structure.
    """
    digest = hashlib.sha256()
    for leaf in tree_leaves(batches):
        if isinstance(leaf, Tensor):
            _update(digest, leaf)
    return digest.hexdigest()[:_LENGTH]


def _update(digest: Any, tensor: Tensor) -> None:
    digest.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
    if tensor.numel():
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(plain.view(torch.uint8).numpy().tobytes())
