"""Quantization as transforms: scales and zero points are read from buffers of the module."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

from tersely.arithmetic.fake_quantization import fake_quantize_flat
from tersely.arithmetic.level_tables import without_padding
from tersely.arithmetic.numbered import Numbering
from tersely.arithmetic.qparams import QParams
from tersely.arithmetic.quantized_types import FLOAT8
from tersely.errors import CalibrationError, SessionError
from tersely.instrument.names import QUANTIZE, full_name
from tersely.instrument.scales.block_cuts import BlockCut
from tersely.instrument.scales.shared_inputs import SharedInputs, is_shareable
from tersely.instrument.scales.target_scales import levels_of, scales_of


def need_float(value: Tensor, name: str) -> None:
    """Refuse to quantize anything but a floating-point tensor.

    Args:
        value: what is about to be quantized.
        name: the target's full name.

    Raises:
        CalibrationError: it holds integers or truth values, such as the indices of tokens.
    """
    if not value.is_floating_point():
        raise CalibrationError(
            f"{name} holds {str(value.dtype).removeprefix('torch.')}, but only floating-point "
            "values can be quantized; leave this target out with target_names",
            target=name,
        )


def where_in_force(share: Tensor | None, quantized: Tensor, value: Tensor) -> Tensor:
    """Return the quantized values where there is a scale.

    Args:
        share: the share of averaged models that have one, or None where there is one.
        quantized: the values that it gives.
        value: the values as they come.
    """
    return quantized if share is None else torch.where(share > 0, quantized, value)


@attrs.frozen
class Grid:
    """The values that a quantized tensor can take.

    Attributes:
        dtype: the quantized type, such as ``int8``.
        scheme: ``symmetric`` or ``affine``.
        quant_min: the smallest integer.
        quant_max: the largest integer.
        has_float_zero_point: whether zero points are added before rounding and may be any number.
        has_levels: whether there may be a table of levels.
    """

    dtype: str
    scheme: str
    quant_min: int
    quant_max: int
    has_float_zero_point: bool = False
    has_levels: bool = False

    @property
    def is_centred(self) -> bool:
        """Whether the integer 0 always represents zero: signed and symmetric (rule Q2.2)."""
        return self.scheme == "symmetric" and self.quant_min == -self.quant_max

    @property
    def has_zero_point(self) -> bool:
        """Whether the zero point can be other than zero."""
        return not (self.is_centred or self.has_levels or self.dtype in FLOAT8)


@attrs.frozen(eq=False)
class Quantize:
    """Fake-quantizes a tensor with the scale and zero point in its module's buffers.

    Attributes:
        target: the parameter's name or the address of the input or output.
        grid: the values it can take.
        cut: which values share a scale.
        clip_gradient: pass no gradient where a value is outside of the range.
        shared: what other inputs of the stage found of the same tensor, or None for a target that
            is not compared with them.
    """

    place: ClassVar[int] = QUANTIZE

    target: str
    grid: Grid
    cut: BlockCut
    clip_gradient: bool = False
    shared: SharedInputs | None = attrs.field(default=None, repr=False)

    def qparams(self, module: nn.Module) -> QParams | None:
        """Return the parameters in force, or None while there are none."""
        found = scales_of(module, self.target)
        return None if found is None else self.kept(module, *found[:2])

    def kept(self, module: nn.Module, scale: Tensor, zero_point: Tensor | None) -> QParams:
        """Return parameters from what the buffers hold, perhaps averaged.

        Args:
            module: the module that owns the target.
            scale: one per block.
            zero_point: the scale's shape, or None for zeros.
        """
        levels = self.levels(module)
        if self.grid.has_float_zero_point and levels is None:
            zero_point = torch.zeros_like(scale) if zero_point is None else zero_point
        elif zero_point is None:
            zero_point = torch.zeros_like(scale, dtype=torch.int32)
        else:
            zero_point = zero_point.round().to(torch.int32)
        found = self.made(scale, zero_point)
        return found if levels is None else found.evolve(levels=without_padding(levels))

    def levels(self, module: nn.Module) -> Tensor | None:
        """Return the table of levels in force, padded, or None where there is none."""
        return levels_of(module, self.target) if self.grid.has_levels else None

    def made(self, scale: Tensor, zero_point: Tensor) -> QParams:
        """Return parameters for this tensor; those of a channel do not depend on the rank."""
        grid = self.grid
        return QParams(
            scale=scale,
            zero_point=zero_point,
            quant_min=grid.quant_min,
            quant_max=grid.quant_max,
            dtype=grid.dtype,
            scheme=grid.scheme,  # type: ignore[arg-type]  # one of the two
            block_size=None if scale.ndim == 0 else self.cut.fixed,
        )

    def fit(self, module: nn.Module, found: QParams, value: Tensor) -> QParams:
        """Return parameters as a value of any rank needs them.

        Args:
            module: the module that owns the target.
            found: the parameters as they are kept.
            value: the tensor.
        """
        if self.cut.fixed is not None or found.scale.ndim == 0:
            return found
        self.need_lengths(module, value, found.scale)
        return found.evolve(
            scale=self.cut.fit(found.scale, value),
            zero_point=self.cut.fit(found.zero_point, value),
            block_size=self.cut.size_of(value) if self.cut.kind == "fixed" else None,
        )

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the quantized values as floats, or the tensor itself while there is no scale."""
        found = scales_of(module, self.target)
        if found is None:
            return value
        scale, zero_point, share = found
        if scale.ndim and self.cut.fixed is None:
            self.need_lengths(module, value, scale)
        if share is not None:
            values = self.apply(value, scale, zero_point, self.levels(module))
            return where_in_force(share, values, value)
        return self._applied(module, value, scale, zero_point)

    def with_own_scale(self, module: nn.Module, value: Tensor) -> Tensor:
        """Quantize with a copy of the scale in force, which nothing changes before backward."""
        found = scales_of(module, self.target)
        if found is None:
            return value
        return self._applied(module, value, *found[:2], is_scale_copied=True)

    def _applied(
        self,
        module: nn.Module,
        value: Tensor,
        scale: Tensor,
        zero_point: Tensor | None,
        *,
        is_scale_copied: bool = False,
    ) -> Tensor:
        levels, shared, known = self.levels(module), self.shared, None
        if levels is not None or not is_shareable(value, scale, zero_point):
            shared = None
        if shared is not None:
            known = shared.quantized(module, value, self.grid, scale, zero_point)
        own, own_zero_point = scale, zero_point
        if is_scale_copied:
            own = scale.clone()
            own_zero_point = None if zero_point is None else zero_point.clone()
        result = self.apply(value, own, own_zero_point, levels, known=known)
        if shared is not None and known is None:
            shared.keep_quantized(module, value, self.grid, scale, zero_point, result)
        return result

    def need_lengths(self, module: nn.Module, value: Tensor, scale: Tensor) -> None:
        """Refuse an input or output of other lengths than its scales were chosen for (rule T1.4).

        Args:
            module: the module that owns the target.
            value: the input or output.
            scale: one per block, in the shape that `BlockCut.canonical` gives it.

        Raises:
            SessionError: there would be more or fewer blocks than scales.
        """
        if self.cut.is_of(value, scale):
            return
        raise SessionError(
            f"{full_name(module, self.target)}: its scales have shape {list(scale.shape)}, and "
            f"this call has shape {list(value.shape)}, which needs different ones; scales apply to "
            "the lengths that they were chosen for: calibrate and compress with this shape, or "
            "take one scale for the tensor",
            target=full_name(module, self.target),
        )

    def apply(
        self,
        value: Tensor,
        scale: Tensor,
        zero_point: Tensor | None,
        levels: Tensor | None = None,
        *,
        known: Tensor | None = None,
    ) -> Tensor:
        """Fake-quantize with given parameters.

        Args:
            value: the tensor.
            scale: one per block, in the shape that `BlockCut.canonical` gives it.
            zero_point: the scale's shape, or None for zeros.
            levels: the table of levels, or None.
            known: what the same arguments have given before, or None.
        """
        scale = self.cut.fit(scale, value)
        is_zero_first = self.grid.has_float_zero_point
        if zero_point is not None:
            zero_point = self.cut.fit(zero_point, value)
            # An average of whole numbers need not be one.
            zero_point = zero_point if is_zero_first else zero_point.round()
        return fake_quantize_flat(
            value,
            scale,
            zero_point,
            quant_min=self.grid.quant_min,
            quant_max=self.grid.quant_max,
            dtype=self.grid.dtype,
            clip_gradient=self.clip_gradient,
            is_zero_first=is_zero_first,
            levels=levels,
            known=known,
            # The shape of scales determines rectangular blocks, but not numbered ones.
            size=self.cut.fixed if isinstance(self.cut.fixed, Numbering) else None,
        )
