"""Batch norms and activations folded into the layer before them while simulated (rule Q4)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor, nn

from tersely.instrument.names import FOLD, MASK
from tersely.instrument.transforms import chain_of
from tersely.planning.selecting.classes import ORIGINAL

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_TRANSPOSED: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.ConvTranspose1d: nn.functional.conv_transpose1d,
    nn.ConvTranspose2d: nn.functional.conv_transpose2d,
    nn.ConvTranspose3d: nn.functional.conv_transpose3d,
}


@attrs.frozen(eq=False)
class Fold:
    """What is folded into one convolution, linear layer or batch norm.

    Attributes:
        norm: the batch norm that follows, or None.
        activation: the activation that follows, or None.
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
        with torch.no_grad():
            _own_forward(self.norm, _plain_output(module, args, kwargs))

    def after(self, output: Any) -> Any:
        """Return the output, activated.

        Args:
            output: the layer's own output.
        """
        if self.activation is None:
            return output
        return _own_forward(self.activation, output)

    def settled(self) -> Settled:
        """Return what is left of it once the weights of the layer and its norm are written."""
        return Settled(self.norm, self.activation)

    def factors(self) -> Tensor:
        """Return what the batch norm multiplies each channel with."""
        inverse: Tensor = torch.rsqrt(self.norm.running_var + self.norm.eps)
        return inverse if self.norm.weight is None else self.norm.weight * inverse


@attrs.frozen(eq=False)
class Settled:
    """What a finished layer computes before its output is rounded.

    Attributes:
        norm: its batch norm, which adds at most the bias that the layer lacks, or None.
        activation: its activation, or None.
    """

    norm: Any = None
    activation: Any = None

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Do nothing: statistics are settled."""

    def after(self, output: Any) -> Any:
        """Return the output, with the bias of the norm, activated.

        Args:
            output: the layer's own output.
        """
        for one in (self.norm, self.activation):
            output = output if one is None else _own_forward(one, output)
        return output


def activation_after(fold: object) -> Callable[[Tensor], Tensor] | None:
    """Return the activation that a layer's forward applies last, or None without one.

    Args:
        fold: what is folded into the layer, or None.
    """
    if not isinstance(fold, (Fold, Settled)) or fold.activation is None:
        return None
    return partial(_own_forward, fold.activation)


def _plain_output(module: nn.Module, args: Any, kwargs: Any) -> Tensor:
    """Return what a layer computes with its plain weight and bias."""
    layer: Any = module
    value = args[0] if args else kwargs.get("input", next(iter(kwargs.values())))
    weight, bias = plain_tensor(module, "weight"), plain_tensor(module, "bias")
    assert weight is not None  # planning refuses a layer without weight
    if isinstance(module, nn.Linear):
        return nn.functional.linear(value, weight, bias)
    for cls, convolve in _TRANSPOSED.items():
        if isinstance(module, cls):
            size = args[1] if len(args) > 1 else kwargs.get("output_size")
            stride, padding, dilation = layer.stride, layer.padding, layer.dilation
            kernel, dims = layer.kernel_size, len(layer.kernel_size)
            more = layer._output_padding(value, size, stride, padding, kernel, dims, dilation)
            return convolve(value, weight, bias, stride, padding, more, layer.groups, dilation)
    output: Tensor = layer._conv_forward(value, weight, bias)
    return output


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
        return value * self._factors(module, value)

    def raw(self, module: nn.Module, folded: Tensor, before: Tensor) -> Tensor:
        """Return the weight whose folded one is given.

        Args:
            module: the layer.
            folded: a weight as it is after folding.
            before: the raw weight so far, of which channels that are multiplied by zero remain.
        """
        factors = self._factors(module, folded)
        return torch.where(factors == 0, before, folded / factors)

    def _factors(self, module: nn.Module, value: Tensor) -> Tensor:
        factors, spatial = self.fold.factors(), (1,) * (value.ndim - 2)
        if not isinstance(module, tuple(_TRANSPOSED)):
            return factors.view(-1, 1, *spatial)
        # Output channels are the second dimension, those of one group for a run of its inputs.
        groups, (inputs, outputs) = int(module.groups), value.shape[:2]  # type: ignore[arg-type]  # an int
        each = factors.view(groups, 1, outputs).expand(groups, inputs // groups, outputs)
        return each.reshape(inputs, outputs, *spatial)

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
