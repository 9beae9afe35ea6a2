"""Running a session's model for its exporters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tersely.contracts.calling import call_model
from tersely.errors import ExportError, TerselyError
from tersely.shrinking.graph.program import evaluating


def run(model: nn.Module, inputs: Any) -> Any:
    """Return the output of a model in evaluation mode, without gradients.

    Args:
        model: the session's model, attached or finalized.
        inputs: a tensor, a tuple or list of arguments, or a mapping of keyword arguments.

    Raises:
        ExportError: the model does not run with these inputs.
    """
    try:
        with evaluating(model), torch.no_grad():
            return call_model(model, inputs)
    except TerselyError:
        raise
    except Exception as error:  # the model's own code runs here
        text = " ".join(str(error).split())
        raise ExportError(
            f"{type(model).__name__} does not run with these inputs: {type(error).__name__}: "
            f"{text}; give example_inputs that it can be called with: a tensor, a tuple of "
            "arguments, or a mapping of keyword arguments"
        ) from error
