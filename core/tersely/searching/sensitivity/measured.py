"""One measurement of a sensitivity analysis."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Measured:
    """The result of one unit at one level, with everything else dense.

    Attributes:
        layer: the unit's label: its first module, and how many others belong to it.
        modules: the modules that change.
        method: pruning or quantization.
        key: ``sparse_ratio``, ``bits``, or ``as_written``.
        level: the ratio or the number of bits; 0 for ``as_written``.
        value: the measured quality.
        drop: how much worse than the dense model, in percent; negative if better. An error is taken
            as it is, a metric relative to the dense model's.
    """

    layer: str
    modules: tuple[str, ...]
    method: str
    key: str
    level: float
    value: float
    drop: float
