"""What of a model is kept from ``torch.export`` while it captures the graph."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn


@contextlib.contextmanager
def flat_weights_kept(model: nn.Module) -> Iterator[None]:
    """Restore the weight lists that recurrent modules write while they are exported.

    Args:
        model: the model.
    """
    flat = {
        module: list(module.__dict__["_flat_weights"])
        for module in model.modules()
        if "_flat_weights" in module.__dict__
    }
    try:
        yield
    finally:
        for module, weights in flat.items():
            module.__dict__["_flat_weights"] = weights


@contextlib.contextmanager
def without_caches(model: nn.Module) -> Iterator[None]:
    """Keep a language model from returning a cache, which is not a tensor; a program is one call.

    Args:
        model: the model, perhaps one of the transformers library.
    """
    found: list[Any] = [module.__dict__.get("config") for module in model.modules()]
    configs = {id(one): one for one in found if getattr(one, "use_cache", None) is True}
    try:
        for config in configs.values():
            config.use_cache = False
        yield
    finally:
        for config in configs.values():
            config.use_cache = True
