"""The rows of a page's table of targets: one for each target, repeated blocks folded.

Report.rows (one a method)   -> PageRow (one a target, with what each method does to it)
PageRows that are alike      -> RowGroup (one a pattern of names, with the range of its values)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import attrs

from tersely.reporting.data import ReportData
from tersely.reporting.printing.folded_names import fold_groups
from tersely.reporting.printing.removals import Removal, removals
from tersely.reporting.printing.table import sizes, spell_scales
from tersely.reporting.rows import BINS, Layer, ReportRow

_HEIGHT = 20


@attrs.frozen(kw_only=True)
class PageRow:
    """A target as a page shows it.

    Attributes:
        name: the full name.
        module: its module's name.
        rows: what each method does to it.
        shape: its shape as text; where it was shrunk, before and after.
        sparsity: the masked share, or None.
        removed: the share that shrinking removed, or None.
        bits: bits an element, with scales, or None.
        layer: its module compared with the dense one, for the weight that is compared, or None.
    """

    name: str
    module: str
    rows: tuple[ReportRow, ...]
    shape: str
    sparsity: float | None = None
    removed: float | None = None
    bits: float | None = None
    layer: Layer | None = None

    @property
    def missed(self) -> bool:
        """Whether it got another sparsity than it was asked for."""
        return any(row.missed for row in self.rows)

    @property
    def treatment(self) -> str:
        """What is done to it, in words."""
        return "; ".join(f"{row.algorithm} {row.request}".strip() for row in self.rows)

    @property
    def details(self) -> str:
        """Blocks, granularity and number of scales, in words."""
        return "; ".join(filter(None, map(_details, self.rows)))

    @property
    def scales(self) -> str:
        """Its scales, or empty where it has none."""
        found = [spell_scales(row) for row in self.rows if row.method == "quantization"]
        return "; ".join(one for one in found if one != "-")

    @property
    def signal(self) -> float | None:
        """The signal-to-noise ratio in decibels, infinite where nothing differs."""
        if self.layer is None:
            return None
        return math.inf if self.layer.is_exact else self.layer.signal_to_noise


@attrs.frozen
class RowGroup:
    """Targets that are treated the same way and whose names differ only in numbers of blocks.

    Attributes:
        name: the pattern of their names.
        rows: the targets.
    """

    name: str
    rows: tuple[PageRow, ...]

    @property
    def first(self) -> PageRow:
        """The first of them, which represents all in what they share."""
        return self.rows[0]

    @property
    def layer(self) -> Layer | None:
        """The weights of all of them together, or None where none is compared."""
        layers = [row.layer for row in self.rows if row.layer is not None and row.layer.weight]
        return _merged(layers) if layers else None

    def span(self, attribute: str, spell: Callable[[float], str]) -> str:
        """Return the smallest and the largest value of the rows, or one value if they are equal.

        Args:
            attribute: sparsity, removed, bits or signal.
            spell: makes text of a number.
        """
        values = [value for row in self.rows if (value := getattr(row, attribute)) is not None]
        if not values:
            return "-"
        low, high = spell(min(values)), spell(max(values))
        return low if low == high else f"{low} to {high}"


def page_groups(report: ReportData) -> tuple[RowGroup, ...]:
    """Return the pruned and quantized targets of a report, folded.

    Args:
        report: the report.
    """
    alike: dict[tuple[str, tuple[object, ...]], list[PageRow]] = {}
    for row in _page_rows(report):
        target = row.name[len(row.module) :]
        key = (row.treatment, row.details, row.shape, row.missed)
        alike.setdefault((target, key), []).append(row)
    groups = []
    for (target, _), rows in alike.items():
        by_module = {row.module: row for row in rows}
        for pattern, members in fold_groups(by_module):
            name = f"{pattern}{target}" if pattern != "(root)" else target
            groups.append(RowGroup(name, tuple(by_module[member] for member in members)))
    return tuple(groups)


def histogram_path(counts: Sequence[int]) -> str:
    """Return the outline of a histogram for an SVG path, 96 wide and 20 high.

    Args:
        counts: how many values each interval has.
    """
    highest = max(counts, default=0)
    if not highest:
        return ""
    step = 96 // BINS
    heights = [round(_HEIGHT * math.sqrt(count / highest)) for count in counts]
    path, level = f"M0 {_HEIGHT}", 0
    for height in heights:
        if height != level:
            path += f"v{level - height}"
        path += f"h{step}"
        level = height
    return f"{path}V{_HEIGHT}z"


def _page_rows(report: ReportData) -> Iterator[PageRow]:
    layers = {layer.module: layer for layer in report.layers}
    removed = removals(report)
    by_name: dict[str, list[ReportRow]] = {}
    for row in report.rows:
        if row.method != "distillation":
            by_name.setdefault(row.name, []).append(row)
    for name, rows in by_name.items():
        first = rows[0]
        layer = layers.get(first.module)
        is_shown = layer is not None and layer.weight in (first.target, "")
        removal = removed.get(name)
        yield PageRow(
            name=name,
            module=first.module,
            rows=tuple(rows),
            shape=_shape(first.shape, removal),
            sparsity=next((row.sparsity for row in rows if row.sparsity is not None), None),
            removed=None if removal is None else removal.share,
            bits=next((bits for row in rows if (bits := _bits(row)) is not None), None),
            layer=layer if is_shown else None,
        )


def _shape(shape: tuple[int, ...] | None, removal: Removal | None) -> str:
    if shape is None or removal is None:
        return sizes(shape)
    old = removal.shape_before(shape)
    # The plan may know the shape of the full model, or that of the small one.
    return sizes(shape) if old == shape else f"{sizes(old)} -> {sizes(shape)}"


def _bits(row: ReportRow) -> float | None:
    return row.bits / row.elements if row.bits is not None and row.elements else None


def _details(row: ReportRow) -> str:
    if row.method == "pruning":
        return f"blocks {sizes(row.blocks)}" if row.blocks else ""
    count = f"{row.scales:,} scale{'' if row.scales == 1 else 's'}" if row.scales else ""
    return ", ".join(filter(None, (row.granularity, count)))


def all_rows(groups: Iterable[RowGroup]) -> tuple[PageRow, ...]:
    """Return the targets of groups, in their order.

    Args:
        groups: as `page_groups` returns them.
    """
    return tuple(row for group in groups for row in group.rows)


def _merged(layers: Sequence[Layer]) -> Layer:
    """Return the weights of several layers as those of one.

    Args:
        layers: at least one, each with a histogram; their intervals are counted at their middles.
    """
    low, high = min(one.low for one in layers), max(one.high for one in layers)
    before, after = [0] * BINS, [0] * BINS
    for one in layers:
        width = (one.high - one.low) / BINS
        for index in range(BINS):
            middle = one.low + (index + 0.5) * width
            place = int((middle - low) / (high - low) * BINS) if high > low else 0
            before[place] += one.before[index]
            after[place] += one.after[index]
    return attrs.evolve(layers[0], low=low, high=high, before=before, after=after)
