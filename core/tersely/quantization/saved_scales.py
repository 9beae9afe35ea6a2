"""Scales of a saved session: gathered, and checked against the targets they are for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from tersely.arithmetic.blocks import count_blocks
from tersely.arithmetic.level_tables import without_padding
from tersely.engine.state.saver import MOVED, Grammar, Parts
from tersely.engine.targets.binding import BoundTarget
from tersely.errors import SessionFileError
from tersely.instrument.names import STATE_PARTS
from tersely.instrument.scales.block_cuts import BlockCut
from tersely.instrument.scales.target_scales import IN_FORCE, are_known
from tersely.quantization.scale_buffers import level_count, read_buffer

GRAMMAR = Grammar(
    "quantization.",
    {
        "buffer": True,
        "seen": True,
        "observed": True,
        "learned": True,
        MOVED: True,
        "value": False,
        "original": False,
        "bias": False,
        "old_bias": False,
        "bias_change": False,
    },
)
"""How quantization names its saved tensors."""


def gather_scales(bound_targets: Iterable[BoundTarget]) -> Parts:
    """Return the buffers in which targets have their scales, to be saved.

    Args:
        bound_targets: all quantization targets.
    """
    found: Parts = {}
    for bound in bound_targets:
        is_known = are_known(bound.module, bound.plan.target)
        buffers = {
            part: buffer
            for part in STATE_PARTS
            if part != IN_FORCE and (is_known or part in ("input_scale", "size"))
            if (buffer := read_buffer(bound, part)) is not None
        }
        if "levels" in buffers:
            buffers["levels"] = without_padding(buffers["levels"])
        if buffers:
            found["buffer", bound.plan.name] = buffers
    return found


def check_scales(bound: BoundTarget, cut: BlockCut, parts: Mapping[str, Tensor]) -> None:
    """Refuse the scale and what belongs to it where they do not fit a target or each other.

    Args:
        bound: a quantization target.
        cut: which of its values share a scale.
        parts: what was saved of it, by part.

    Raises:
        SessionFileError: a shape, dtype or value cannot come from a session.
    """
    scale = parts.get("scale")
    for part, tensor in parts.items():
        if part in ("scale", "zero_point", "low", "high", "input_scale", "levels"):
            _need(bound, part, tensor, is_fine=tensor.is_floating_point(), wanted="a float type")
            finite = bool(tensor.isfinite().all())
            _need(bound, part, tensor, is_fine=finite, wanted="finite values")
        else:
            is_whole = not tensor.is_floating_point() and not tensor.is_complex()
            _need(bound, part, tensor, is_fine=is_whole, wanted="integers")
        if part == "levels":
            rises = tensor.ndim == 1 and len(tensor) > 1 and bool((tensor.diff() > 0).all())
            _need(bound, part, tensor, is_fine=rises, wanted="two or more ascending values")
            most = level_count(bound)
            fits = len(tensor) <= most
            _need(bound, part, tensor, is_fine=fits, wanted=f"at most {most} of them")
        if part in ("scale", "input_scale"):
            _need(bound, part, tensor, is_fine=bool((tensor > 0).all()), wanted="values above 0")
        if part in ("zero_point", "low", "high") and scale is not None:
            fits = tensor.shape == scale.shape
            _need(bound, part, tensor, is_fine=fits, wanted=f"shape {list(scale.shape)}")
    if scale is not None:
        _need(bound, "scale", scale, is_fine=_fits(bound, cut, scale), wanted="one for each block")
    low, high = parts.get("low"), parts.get("high")
    if low is not None and high is not None:
        fits = low.shape == high.shape and bool((low <= high).all())
        _need(bound, "low", low, is_fine=fits, wanted="values that are not above those of high")
    factors, shape = parts.get("input_scale"), bound.plan.shape
    if factors is not None and shape is not None:
        length = shape[bound.plan.input_dim]
        groups = getattr(bound.module, "groups", 1)
        wanted = [shape[0], length] if bound.plan.has_experts else [length]
        fits = list(factors.shape) in (wanted, [length * groups])
        _need(bound, "input_scale", factors, is_fine=fits, wanted=f"shape {wanted}")
    size = parts.get("size")
    if size is not None and scale is not None:
        # One scale for all needs no size of blocks; one is there where blocks became as large.
        fits = size.ndim == 1 and scale.ndim in (0, len(size))
        _need(bound, "size", size, is_fine=fits, wanted=f"shape [{scale.ndim}]")


def check_learned(bound: BoundTarget, parts: Mapping[str, Tensor], scale: Tensor | None) -> None:
    """Refuse learned scales and zero points of another shape than what they started from.

    Args:
        bound: a quantization target.
        parts: what was learned of it, by name.
        scale: the scale from which it started.

    Raises:
        SessionFileError: there is no such scale, or the shapes differ.
    """
    for name, tensor in parts.items():
        has_start = scale is not None and tensor.is_floating_point()
        _need(bound, name, tensor, is_fine=has_start, wanted="a float type and a scale beside it")
        if scale is not None and name in ("scale", "zero_point"):
            fits = tensor.shape == scale.shape
            _need(bound, name, tensor, is_fine=fits, wanted=f"shape {list(scale.shape)}")


def _fits(bound: BoundTarget, cut: BlockCut, scale: Tensor) -> bool:
    blocks, shape = bound.plan.blocks, bound.plan.shape
    if shape is not None and blocks is not None:
        expected = count_blocks(blocks.size, shape)
        is_whole = all(one == 1 for one in expected) and scale.numel() == 1
        return is_whole or tuple(scale.shape) == expected
    if cut.kind == "tensor":
        return scale.ndim == 0
    if cut.kind == "channel":
        return max(scale.shape, default=1) == scale.numel()
    return True


def _need(bound: BoundTarget, part: str, tensor: Tensor, *, is_fine: bool, wanted: str) -> None:
    if not is_fine:
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise SessionFileError(
            f"the saved {part} of {bound.plan.name} is {dtype} of shape {list(tensor.shape)}; "
            f"expected {wanted}",
            target=bound.plan.name,
        )
