"""What shrinking removed of each target, and what it had to leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import attrs

from tersely.reporting.data import ReportData
from tersely.reporting.printing.folded_names import fold_names
from tersely.shrinking.report import Stay


@attrs.frozen
class Removal:
    """What all shrinks together removed of one parameter.

    Attributes:
        share: the share of its elements, in [0, 1].
        lengths: dimension -> its length before the first of them, for those that became shorter.
    """

    share: float
    lengths: Mapping[int, int]

    def shape_before(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape before the first shrink.

        Args:
            shape: the parameter's shape now, or before.
        """
        return tuple(self.lengths.get(dimension, length) for dimension, length in enumerate(shape))


def removals(report: ReportData) -> dict[str, Removal]:
    """Return full name of a parameter -> what shrinking removed of it.

    Args:
        report: the report.
    """
    kept: dict[str, float] = {}
    before: dict[str, dict[int, int]] = {}
    for shrunk in report.shrinks:
        for row in shrunk.rows:
            name = f"{row.module}.{row.parameter}" if row.module else row.parameter
            kept[name] = kept.get(name, 1.0) * (row.after / row.before if row.before else 1.0)
            before.setdefault(name, {}).setdefault(row.dimension, row.before)
    return {name: Removal(1.0 - share, before[name]) for name, share in kept.items()}


def stay_lines(stays: Sequence[Stay]) -> Iterator[str]:
    """Yield what stayed and why, in one line for all that the same change of the config frees.

    Args:
        stays: masked slices that could not be removed.
    """
    alike: dict[str, list[Stay]] = {}
    for stay in stays:
        alike.setdefault(stay.hint or stay.reason, []).append(stay)
    for group in alike.values():
        first, *others = group
        if not others:
            yield str(first)
            continue
        names = ", ".join(fold_names(dict.fromkeys(one.target for one in group)))
        hint = f"; what frees them: {first.hint}" if first.hint else ""
        yield (
            f"{names}: {sum(one.count for one in group):,} masked slices stay, those of "
            f"{first.target} because {first.reason}{hint}"
        )
