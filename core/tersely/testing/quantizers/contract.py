"""The contract of quantizers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import attrs
import torch
from torch import Tensor, nn

from tersely.arithmetic.blocks import Blocks
from tersely.arithmetic.qparams import QParams
from tersely.arithmetic.quantized_types import quantized_range
from tersely.contracts.quantized_forward import Simulates
from tersely.contracts.quantized_grids import UsesFloatZeroPoints
from tersely.contracts.quantizer import QuantizationTarget, choose_of
from tersely.contracts.settings import QuantizationSetting
from tersely.contracts.target_plan import Origin, TargetPlan
from tersely.json_value import Json
from tersely.quantization.scale_buffers import range_of
from tersely.quantization.targets import grid_of
from tersely.testing.contract import Kind, expect, require
from tersely.testing.quantizers.abilities import QuantizerAbilityChecks
from tersely.testing.untouched.modules import expect_own

_DTYPES = ("int8", "int4", "uint8")
_SCHEMES: tuple[Literal["symmetric", "affine"], ...] = ("symmetric", "affine")


@attrs.define(eq=False)
class QuantizerContract(QuantizerAbilityChecks):
    """What every quantizer must meet."""

    kind: ClassVar[Kind] = "quantizers"

    def check_shapes(self) -> None:
        """Scale and zero point have the shape of the observed range."""
        for target, low, _, chosen in self._chosen():
            where = _where(target)
            for name in ("scale", "zero_point"):
                found, expected = tuple(getattr(chosen, name).shape), tuple(low.shape)
                expect(found == expected, f"{where}: {name} has shape {found}, expected {expected}")

    def check_scale(self) -> None:
        """Scales are finite and positive, even for a range of zeros."""
        for target, _, _, chosen in self._chosen():
            scale = chosen.scale
            good = bool((scale.isfinite() & (scale > 0)).all())
            expect(good, f"{_where(target)}: the scale is {scale.tolist()}")
            is_wide = scale.dtype in (torch.float32, torch.float64)
            expect(
                is_wide,
                f"{_where(target)}: scales have dtype {scale.dtype}, expected torch.float32",
            )

    def check_zero(self) -> None:
        """Zero points are integers in the range, or finite floats if floats are declared."""
        for target, _, _, chosen in self._chosen():
            zero = chosen.zero_point.double()
            if chosen.levels is not None:
                continue
            if target.has_float_zero_point:
                finite = bool(zero.isfinite().all())
                expect(finite, f"{_where(target)}: the zero point is {zero.tolist()}")
                continue
            inside = (
                (zero >= target.quant_min) & (zero <= target.quant_max) & (zero == zero.round())
            )
            expect(bool(inside.all()), f"{_where(target)}: the zero point is {zero.tolist()}")

    def check_integers(self) -> None:
        """The integers match the target's dtype, and the scheme is the target's."""
        for target, _, _, chosen in self._chosen():
            found = (chosen.dtype, chosen.scheme, chosen.quant_min, chosen.quant_max)
            expected = (target.dtype, target.scheme, target.quant_min, target.quant_max)
            expect(found == expected, f"{_where(target)}: expected {expected}, got {found}")

    def check_reach(self) -> None:
        """The quantized values cover at least a hundredth of the range."""
        for target, low, high, chosen in self._chosen():
            least, most = range_of(chosen)
            reached = torch.maximum(least.abs(), most.abs()).reshape(low.shape)
            seen = torch.maximum(low.abs(), high.abs())
            expect(
                bool((reached >= seen / 100).all()),
                f"{_where(target)}: values up to {seen.flatten().tolist()} are clipped to "
                f"{reached.flatten().tolist()}",
            )

    def check_scheme(self) -> None:
        """The affine scheme spends at most a third of its values outside of a one-sided range."""
        if isinstance(self.make(), Simulates):
            return  # it has its own grid
        for target, low, high, chosen in self._chosen():
            if target.scheme != "affine" or chosen.levels is not None:
                continue
            least, most = (one.reshape(low.shape) for one in range_of(chosen))
            for seen, empty in ((high, -least), (-low, most)):
                is_one_sided = torch.minimum(high.abs(), low.abs()) < seen / 100
                good = ~is_one_sided | (empty <= seen.abs() / 2)
                expect(
                    bool(good.all()),
                    f"{_where(target)}: values from {low.flatten().tolist()} to "
                    f"{high.flatten().tolist()} are read as {least.flatten().tolist()} to "
                    f"{most.flatten().tolist()}; does it ignore the scheme?",
                )

    def check_other_range(self) -> None:
        """A range three times as large gives different scales."""
        quantizer = self.make()
        if isinstance(quantizer, Simulates):
            return  # it has its own grid
        for target, low, high, chosen in self._chosen():
            other = choose_of(quantizer)(3 * low, 3 * high, target)
            expect(
                not torch.equal(chosen.scale, other.scale),
                f"{_where(target)}: a range three times as large gives the same scales",
            )

    def check_determinism(self) -> None:
        """The same range gives the same scale and zero point, in new tensors each time."""
        for (target, _, _, one), (_, _, _, other) in zip(
            self._chosen(), self._chosen(), strict=True
        ):
            same = torch.equal(one.scale, other.scale)
            same = same and torch.equal(one.zero_point, other.zero_point)
            expect(same, f"{_where(target)}: two objects choose different scales or zero points")
            expect_own(one.scale, other.scale, f"{_where(target)}: scales")

    def check_range_untouched(self) -> None:
        """The observed range is not modified."""
        for target, low, high, _ in self._chosen():
            fresh_low, fresh_high = _ranges(target)
            same = torch.equal(low, fresh_low) and torch.equal(high, fresh_high)
            expect(same, f"{_where(target)}: the observed range was modified")

    def _seen_as(self, target: QuantizationTarget) -> QuantizationTarget:
        grid = grid_of(target.plan, self.make())
        return target.evolve(
            has_float_zero_point=grid.has_float_zero_point, has_levels=grid.has_levels
        )

    def _schemes(self) -> Sequence[Literal["symmetric", "affine"]]:
        # Zero points between integers are those of affine targets.
        is_between = isinstance(self.make(), UsesFloatZeroPoints)
        return _SCHEMES[1:] if is_between else _SCHEMES

    def _chosen(self) -> Iterator[tuple[QuantizationTarget, Tensor, Tensor, QParams]]:
        for dtype in _DTYPES:
            for scheme in self._schemes():
                for size in ((1, -1), (-1, -1)):
                    target = self._seen_as(_target(dtype, scheme, size))
                    low, high = _ranges(target)
                    chosen = choose_of(self.make())(low, high, target)
                    is_chosen = isinstance(chosen, QParams)
                    found = type(chosen).__name__
                    expect(is_chosen, f"{_where(target)}: expected QParams, got {found}")
                    yield target, low, high, chosen


def _target(
    dtype: str, scheme: Literal["symmetric", "affine"], size: tuple[int, int]
) -> QuantizationTarget:
    limits = quantized_range(dtype)
    plan = TargetPlan(
        module="layer",
        target="weight",
        kind="parameter",
        method="quantization",
        algorithm="contract",
        setting=QuantizationSetting.of({"quant_dtype": dtype, "quant_scheme": scheme}),
        origin=Origin("contract"),
        shape=(4, 8),
        module_type="Linear",
    )
    return QuantizationTarget(
        plan=plan,
        quant_min=limits.quant_min,
        quant_max=limits.quant_max,
        dtype=dtype,
        scheme=scheme,
        blocks=Blocks(size),
        module=nn.Linear(8, 4),
    )


def _ranges(target: QuantizationTarget) -> tuple[Tensor, Tensor]:
    # Both signs, positive only, negative only, and all zeros.
    low = torch.tensor([[-1.0], [1 / 1024], [-3.0], [0.0]])
    high = torch.tensor([[2.0], [0.5], [-1 / 1024], [0.0]])
    if target.blocks.size == (-1, -1):
        return low.amin().reshape(()), high.amax().reshape(())
    return low, high


def _where(target: QuantizationTarget) -> str:
    return f"{target.dtype} {target.scheme}, blocks {list(target.blocks.size)}"


def check_quantizer(name: str, *, options: Mapping[str, Json] | None = None) -> None:
    """Run the whole contract of a quantizer.

    Args:
        name: its name in the registry.
        options: options to make it with.

    Raises:
        ContractError: lists every check that failed.
        PluginError: no plugin provides the name.
    """
    require(QuantizerContract(name, options or {}))
