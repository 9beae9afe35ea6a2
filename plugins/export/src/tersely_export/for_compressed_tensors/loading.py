"""How transformers loads a folder again: from which file, with which class, in which shapes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch

import tersely

WEIGHTS = "model.safetensors"
"""The file of weights, or what the names of its shards begin with, where from_pretrained looks."""


def class_of(model: torch.nn.Module) -> Any:
    """Return the class that loads a model again.

    Args:
        model: the session's model.
    """
    import transformers  # late: only models of transformers need it

    cls = type(model)
    # The class that is made on the fly comes first; the user's own is the last of that name.
    same = [one for one in cls.__mro__ if one.__name__ == cls.__name__]
    return getattr(transformers, cls.__name__, None) or same[-1]


def refused_shapes(source: tersely.ExportSource) -> Iterator[tersely.Refusal]:
    """Yield parameters of other shapes than the class makes of the config, as after shrinking.

    Args:
        source: the session.
    """
    model: Any = source.model
    with torch.device("meta"):
        fresh = class_of(model)(copy.deepcopy(model.config))
    made = {name: tuple(one.shape) for name, one in fresh.named_parameters()}
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        if made.get(name, shape) != shape:
            yield tersely.Refusal(
                f"its shape is {shape}, as after shrinking, and its class makes {made[name]} of "
                "the config, which is what transformers loads; export to onnx or safetensors",
                name,
            )
