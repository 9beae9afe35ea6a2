"""A copy of a model that shares its weights, to run without side effects on the model."""

from __future__ import annotations

import copy

from torch import nn


def twin_of(model: nn.Module) -> nn.Module:
    """Return a copy of a model whose parameters share the storage of the model's.

    Args:
        model: the model; its buffers and attributes are copied.

    Raises:
        Exception: whatever ``copy.deepcopy`` of one of its modules raises.
    """
    # Parameters are by far the largest part of a model; only buffers and the rest are duplicated.
    shared = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
        if not isinstance(parameter, nn.UninitializedParameter)
    }
    return copy.deepcopy(model, shared)
