"""What observers of a session receive of its masks and scales."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor

from tersely.arithmetic.qparams import QParams
from tersely.engine.targets.binding import BoundTarget


def mask_values(
    masks: Iterable[tuple[BoundTarget, Tensor]], shares: Iterable[float]
) -> Iterator[tuple[str, float]]:
    """Yield the sparsity of every target and how many of its elements are masked.

    Args:
        masks: every target with its mask.
        shares: the masked share of the elements of each.
    """
    for (bound, mask), share in zip(masks, shares, strict=True):
        yield f"sparsity/{bound.plan.name}", share
        shape = bound.plan.shape
        elements = mask.numel() if shape is None else math.prod(shape)
        yield f"masked/{bound.plan.name}", float(round(share * elements))


def range_values(qparams: Mapping[str, Mapping[str, QParams]]) -> Iterator[tuple[str, float]]:
    """Yield the smallest and the largest value that the scales of each target span.

    Args:
        qparams: module -> target -> what `Session.qparams` returns.
    """
    for module, targets in qparams.items():
        for target, one in targets.items():
            name = f"{module}.{target}" if module else target
            scale, zero = one.scale.detach().float(), one.zero_point.detach().float()
            yield f"range_low/{name}", float(((one.quant_min - zero) * scale).min())
            yield f"range_high/{name}", float(((one.quant_max - zero) * scale).max())
