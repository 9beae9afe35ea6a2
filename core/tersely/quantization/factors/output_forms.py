"""Ways to multiply the output channels of a module through the parameters it has anyway."""

from __future__ import annotations

from collections.abc import Collection

import attrs
import torch
from torch import Tensor, nn

from tersely.arithmetic.qparams import QParams
from tersely.instrument.modules.classes import is_sharded
from tersely.planning.selecting.classes import original_class
from tersely.quantization.factors.output_rows import OutputRows, row_layouts

_MATRIX = 2
_TRANSPOSED = ("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Embedding")


@attrs.frozen
class OutputForm:
    """How a module's parameters make its output channels larger or smaller.

    Attributes:
        dim: the dimension of output channels in its weight.
        is_offset: whether it multiplies with 1 + weight, as the norms of Gemma do.
        rows: which output channels those are, or None where they are all of them.
        weight: the name of its weight; of experts it stacks a matrix for each.
    """

    dim: int
    is_offset: bool = False
    rows: OutputRows | None = None
    weight: str = "weight"

    @property
    def bias(self) -> str:
        """The name of its bias."""
        return "bias" if self.weight == "weight" else f"{self.weight}_bias"

    @property
    def is_of_experts(self) -> bool:
        """Whether the weight stacks a matrix for each expert."""
        return self.weight != "weight"

    def fits(self, module: nn.Module, channels: int) -> bool:
        """Tell whether a module still has this form.

        Args:
            module: the module.
            channels: how many input channels a weight has that reads it.
        """
        weight = module._parameters.get(self.weight)
        if self.rows is not None and not self.rows.fits(channels):
            return False
        outputs = channels if self.rows is None else self.rows.outputs
        is_there = weight is not None and not is_sharded(weight) and weight.ndim > self.dim
        return is_there and weight is not None and weight.shape[self.dim] == outputs

    def allows(self, factors: Tensor) -> bool:
        """Tell whether factors are equal where one output channel takes several of them.

        Args:
            factors: shape (channels,), or (experts, channels).
        """
        return self.rows is None or self.rows.is_tied(factors)

    def of_outputs(self, factors: Tensor) -> Tensor:
        """Return the factors of a module's output channels.

        Args:
            factors: those of the weight that reads it, shape (channels,), or (experts, channels).
        """
        return factors if self.rows is None else self.rows.of_outputs(factors)

    def multiply(self, module: nn.Module, factors: Tensor) -> None:
        """Multiply the output channels of a module, in place.

        Args:
            module: the module.
            factors: those of the weight that reads it, shape (channels,), or (experts, channels).
        """
        weight, bias = module._parameters[self.weight], module._parameters.get(self.bias)
        assert weight is not None  # `forms_of` has checked
        with torch.no_grad():
            factors = self.of_outputs(factors).to(weight.device, torch.float64)
            along = along_dim(factors, self.dim, weight.ndim)
            if self.is_offset:
                weight.copy_((weight.double() + 1) * along - 1)
            else:
                weight.copy_(weight.double() * along)
            if bias is not None:
                bias.copy_(bias.double() * factors)

    def make_exact(self, module: nn.Module) -> bool:
        """Round a weight so that its output can be doubled exactly, where that is needed.

        Args:
            module: the module.

        Returns:
            Whether the weight was rounded.
        """
        weight = module._parameters[self.weight]
        if not self.is_offset or weight is None:
            return False
        step = 4 * torch.finfo(weight.dtype).eps
        with torch.no_grad():
            weight.copy_((weight.double() / step).round() * step)
        return True


def along_dim(values: Tensor, dim: int, rank: int) -> Tensor:
    """Return a vector in a shape that goes along one dimension of a tensor.

    Args:
        values: one dimension, or (experts, ...) where the first dimension of the tensor is experts.
        dim: the tensor's dimension.
        rank: how many dimensions the tensor has.
    """
    if values.ndim > 1:
        shape = [1] * rank
        shape[0], shape[dim] = values.shape
        return values.view(shape)
    return values.view(-1, *(1,) * (rank - dim - 1))


def forms_of(
    module: nn.Module, channels: int, *, heads: Collection[int] = ()
) -> tuple[OutputForm, ...]:
    """Return the ways in which the output channels of a module may be multiplied.

    Only a trial shows whether one of them does what it should.

    Args:
        module: a module of the model.
        channels: how many input channels the weight has that reads it.
        heads: the sizes that heads of attention may have; none says that
            the usual ones will do.
    """
    weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
    if weight is None or not weight.is_floating_point() or next(module.children(), None):
        return ()
    if is_sharded(weight):
        return ()
    if weight.ndim == 1:
        fits = weight.shape[0] == channels and (bias is None or bias.shape == weight.shape)
        return (OutputForm(0), OutputForm(0, is_offset=True)) if fits else ()
    names = {cls.__name__ for cls in original_class(type(module)).mro()}
    if names.intersection(_TRANSPOSED):
        dims: tuple[int, ...] = (1,)
    else:  # a matrix may be stored either way, but for that of a linear layer
        dims = (0, 1) if weight.ndim == _MATRIX and "Linear" not in names else (0,)
    dims = tuple(dim for dim in dims if bias is None or bias.shape == (weight.shape[dim],))
    whole = tuple(OutputForm(dim) for dim in dims if weight.shape[dim] == channels)
    if whole or weight.ndim != _MATRIX or "Embedding" in names:
        return whole
    return tuple(
        OutputForm(dim, rows=rows)
        for dim in dims
        for rows in row_layouts(weight.shape[dim], channels, heads=heads)
    )


def divided(qparams: QParams, factors: Tensor, *, dim: int, rank: int) -> QParams | None:
    """Return the scales of a tensor whose channels are divided, with the very same integers.

    Args:
        qparams: the scales it has.
        factors: what each channel is divided by, shape (channels,), or (experts, channels).
        dim: the tensor's dimension of these channels.
        rank: how many dimensions the tensor has.

    Returns:
        None where channels share a scale, so that no scale serves all of them afterwards.
    """
    scale = qparams.scale
    dims = (dim,) if factors.ndim == 1 else (0, dim)
    if scale.ndim != rank or tuple(scale.shape[one] for one in dims) != factors.shape:
        return None
    along = along_dim(factors.to(scale.device, torch.float64), dim, rank)
    return qparams.evolve(scale=(scale.double() / along).to(scale.dtype))
