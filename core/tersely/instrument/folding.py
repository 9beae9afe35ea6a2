"""Batch norms and ReLUs folded into the layer before them while simulated (rule Q4)."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor, nn

from tersely.instrument.names import FOLD, MASK
from tersely.instrument.transforms import chain_of
from tersely.planning.classes import ORIGINAL

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@attrs.frozen(eq=False)
class Fold:
    """What is folded into one convolution or linear layer.

    Attributes:
        norm: the batch norm that follows, or None.
        activation: the ReLU that follows, or None.
    """

    norm: Any = None
    activation: Any = None

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Let the batch norm see what it would without quantization, in training.

        Args:
            module: the layer.
            args: positional arguments, processed.
            kwargs: keyword arguments, processed.
        """
        if self.norm is None or not (module.training and self.norm.training):
            return
        value = args[0] if args else next(iter(kwargs.values()))
        with torch.no_grad():
            weight, bias = plain_tensor(module, "weight"), plain_tensor(module, "bias")
            layer: Any = module
            assert weight is not None  # planning refuses a layer without weight
            if isinstance(module, nn.Linear):
                output = nn.functional.linear(value, weight, bias)
            else:
                output = layer._conv_forward(value, weight, bias)
            _own_forward(self.norm, output)

    def after(self, output: Any) -> Any:
        """Return the output, activated.

        Args:
            output: the layer's own output.
        """
        if self.activation is None:
            return output
        return _own_forward(self.activation, output)

    def factors(self) -> Tensor:
        """Return what the batch norm multiplies each channel with."""
        inverse: Tensor = torch.rsqrt(self.norm.running_var + self.norm.eps)
        return inverse if self.norm.weight is None else self.norm.weight * inverse


def _own_forward(folded: nn.Module, value: Tensor) -> Any:
    # Called, it would pass its input on. Looked up without a cache, of which torch.compile warns.
    return getattr(type(folded), ORIGINAL).forward(folded, value)


def plain_tensor(module: nn.Module, name: str) -> Tensor | None:
    """Return a parameter, masked and otherwise as it is, or None where it is None.

    Args:
        module: an instrumented module.
        name: the parameter's name, which is a target or belongs to a folded layer.
    """
    value: Tensor | None = module._parameters.get(name)
    if value is None:
        return None
    for transform in chain_of(module, name):
        if transform.place == MASK:
            value = transform(module, value)
    return value


@attrs.frozen(eq=False)
class FoldWeight:
    """Multiplies each output channel of a weight as the batch norm would its output."""

    place: ClassVar[int] = FOLD

    fold: Fold

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return weight * gamma / sqrt(var + eps)."""
        return value * self.fold.factors().view(-1, *(1,) * (value.ndim - 1))

    def of_nothing(self, module: nn.Module) -> Tensor | None:
        """Return None: a layer without weight has none folded either."""
        return None


@attrs.frozen(eq=False)
class FoldBias:
    """Gives a layer the bias that it and its batch norm have together."""

    place: ClassVar[int] = FOLD

    fold: Fold

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return (bias - mean) * gamma / sqrt(var + eps) + beta."""
        norm = self.fold.norm
        shifted: Tensor = (value - norm.running_mean) * self.fold.factors()
        return shifted if norm.bias is None else shifted + norm.bias

    def of_nothing(self, module: nn.Module) -> Tensor | None:
        """Return the folded bias of a layer that has none."""
        return self(module, torch.zeros_like(self.fold.norm.running_mean))
