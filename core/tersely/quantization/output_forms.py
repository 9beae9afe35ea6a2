"""Ways to multiply the output channels of a module through the parameters it has anyway."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn

from tersely.arithmetic.qparams import QParams
from tersely.instrument.modules.classes import is_sharded
from tersely.planning.selecting.classes import original_class

_TRANSPOSED = ("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Embedding")


@attrs.frozen
class OutputForm:
    """How a module's parameters make its output channels larger or smaller.

    Attributes:
        dim: the dimension of output channels in its weight.
        is_offset: whether it multiplies with 1 + weight, as the norms of Gemma do.
    """

    dim: int
    is_offset: bool = False

    def multiply(self, module: nn.Module, factors: Tensor) -> None:
        """Multiply the output channels of a module, in place.

        Args:
            module: the module.
            factors: shape (outputs,).
        """
        weight, bias = module._parameters["weight"], module._parameters.get("bias")
        assert weight is not None  # `forms_of` has checked
        with torch.no_grad():
            factors = factors.to(weight.device, torch.float64)
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
        weight = module._parameters["weight"]
        if not self.is_offset or weight is None:
            return False
        step = 4 * torch.finfo(weight.dtype).eps
        with torch.no_grad():
            weight.copy_((weight.double() / step).round() * step)
        return True


def along_dim(values: Tensor, dim: int, rank: int) -> Tensor:
    """Return a vector in a shape that goes along one dimension of a tensor.

    Args:
        values: one dimension.
        dim: the tensor's dimension.
        rank: how many dimensions the tensor has.
    """
    return values.view(-1, *(1,) * (rank - dim - 1))


def forms_of(module: nn.Module, channels: int) -> tuple[OutputForm, ...]:
    """Return the ways in which the output channels of a module may be multiplied.

    Only a trial shows whether one of them does what it should.

    Args:
        module: a module of the model.
        channels: how many output channels it is to have.
    """
    weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
    if weight is None or not weight.is_floating_point() or next(module.children(), None):
        return ()
    if is_sharded(weight) or (bias is not None and bias.shape != (channels,)):
        return ()
    if weight.ndim == 1:
        fits = weight.shape[0] == channels
        return (OutputForm(0), OutputForm(0, is_offset=True)) if fits else ()
    is_transposed = any(cls.__name__ in _TRANSPOSED for cls in original_class(type(module)).mro())
    dims = (1,) if is_transposed else (0, 1) if weight.ndim == 2 else (0,)  # noqa: PLR2004  # a matrix may be stored either way
    return tuple(OutputForm(dim) for dim in dims if weight.shape[dim] == channels)


def divided(qparams: QParams, factors: Tensor, *, dim: int, rank: int) -> QParams | None:
    """Return the scales of a tensor whose channels are divided, with the very same integers.

    Args:
        qparams: the scales it has.
        factors: what each channel is divided by, shape (channels,).
        dim: the tensor's dimension of these channels.
        rank: how many dimensions the tensor has.

    Returns:
        None where channels share a scale, so that no scale serves all of them afterwards.
    """
    scale = qparams.scale
    if scale.ndim != rank or scale.shape[dim] != factors.numel():
        return None
    along = along_dim(factors.to(scale.device, torch.float64), dim, rank)
    return qparams.evolve(scale=(scale.double() / along).to(scale.dtype))
