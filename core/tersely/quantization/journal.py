"""What was in force before scales are chosen, so that an error can take all of it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tersely.engine.binding import Handle
from tersely.instrument.classes import instruments_of, replace_instruments
from tersely.instrument.instruments import Instruments
from tersely.instrument.names import PREFIX
from tersely.quantization.folds import fold_members, folds_of

if TYPE_CHECKING:
    from tersely.quantization.engine import Quantization


class Journal:
    """Notes buffers and steps at once and values when they change; mutable for the latter."""

    def __init__(self, quantization: Quantization) -> None:
        self.quantization = quantization
        self.values: dict[Handle, Tensor] = {}
        self.biases: dict[Handle, Tensor] = {}
        self.optimizers = [run.optimizer for run in quantization.runs]
        self.state: dict[nn.Module, tuple[Instruments, dict[str, tuple[Tensor, Tensor]]]] = {}
        folded = [
            module
            for _, layer, fold in folds_of(quantization.binding)
            for module in fold_members(layer, fold)
        ]
        for module in dict.fromkeys([*quantization.modules(), *folded]):
            buffers = {
                name: (buffer, buffer.detach().clone())
                for name, buffer in module._buffers.items()
                if name.startswith(PREFIX) and buffer is not None
            }
            self.state[module] = (instruments_of(module), buffers)
        self.originals = dict(quantization.originals)
        self.old_biases = dict(quantization.biases)

    def note(self, handle: Handle) -> None:
        """Remember the values of a target that is about to change.

        Args:
            handle: the target.
        """
        if handle not in self.values:
            self.values[handle] = handle.dense().clone()
            self.quantization.originals.setdefault(handle, self.values[handle])

    def correct_bias(self, weight: Handle, change: Tensor) -> None:
        """Add to the bias beside a weight.

        Args:
            weight: the weight.
            change: shape (outputs,).
        """
        bias = weight.module._parameters["bias"]
        assert bias is not None  # the caller has looked
        if weight not in self.biases:
            self.biases[weight] = bias.detach().clone()
            self.quantization.biases.setdefault(weight, self.biases[weight])
        with torch.no_grad():
            bias.add_(change.to(bias.dtype))

    def undo(self) -> None:
        """Put everything back."""
        for module, (instruments, buffers) in self.state.items():
            replace_instruments(module, instruments)
            for name in [name for name in module._buffers if name.startswith(PREFIX)]:
                if name not in buffers:
                    del module._buffers[name]
            for name, (buffer, before) in buffers.items():
                # The very tensors: an optimizer knows those that learn, compiled graphs all.
                with torch.no_grad():
                    buffer.copy_(before)
                module._buffers[name] = buffer
        for handle, values in self.values.items():
            handle.write(values)
        for handle, values in self.biases.items():
            restore_bias(handle, values)
        for run, optimizer in zip(self.quantization.runs, self.optimizers, strict=True):
            run.optimizer = optimizer
        self.quantization.originals = self.originals
        self.quantization.biases = self.old_biases


def restore_bias(weight: Handle, values: Tensor) -> None:
    """Give the bias beside a weight other values.

    Args:
        weight: the weight.
        values: shape (outputs,).
    """
    bias = weight.module._parameters["bias"]
    if bias is not None:
        with torch.no_grad():
            bias.copy_(values)
