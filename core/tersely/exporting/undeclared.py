"""Refusing weights whose integers are not multiples of a scale, unless a format holds them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch

from tersely.arithmetic.qparams import QParams
from tersely.contracts.exporter import ExportSource
from tersely.errors import Refusal

_REASONS = {
    "float_zero_points": "its zero points are not among the integers, and the format has no "
    "others; quantize it with an algorithm that chooses whole ones",
    "levels": "its integers are indices into a table of levels, which the format cannot hold; "
    "export to safetensors, or quantize it with an algorithm of whole steps",
}


def refused_meanings(source: ExportSource, holds: Collection[str]) -> Iterator[Refusal]:
    """Yield the weights that a format would write wrongly, judged by what it declares to hold.

    Args:
        source: the session.
        holds: what the format's descriptor declares.
    """
    if set(_REASONS).issubset(holds):
        return
    found = [(name, weight.qparams) for name, weight in source.integers.items()]
    found += [(one.name, one.qparams) for one in source.activations if one.qparams is not None]
    for name, qparams in found:
        for meaning in _meanings(qparams):
            if meaning not in holds:
                yield Refusal(_REASONS[meaning], name)


def refused_numberings(source: ExportSource, holds: Collection[str]) -> Iterator[Refusal]:
    """Yield the weights whose scales belong to numbered blocks, unless the format holds numbers.

    Other formats only know rectangles, so their exporters are not asked.

    Args:
        source: the session.
        holds: what the format's descriptor declares.
    """
    if "numbered_blocks" in holds:
        return
    for name, target in source.targets.items():
        if target.blocks is not None and target.blocks.index is not None:
            yield Refusal(
                "its scales belong to numbered blocks, and the format only holds rectangular ones; "
                "quantize it with another granularity, or write what session.finalize() returns",
                name,
            )


def _meanings(qparams: QParams) -> Iterator[str]:
    if qparams.levels is not None:
        yield "levels"
    elif qparams.zero_point.is_floating_point():
        zero_point = qparams.zero_point
        is_whole = torch.equal(zero_point, zero_point.round())
        is_inside = zero_point.ge(qparams.quant_min) & zero_point.le(qparams.quant_max)
        if not (is_whole and bool(is_inside.all())):
            yield "float_zero_points"
