"""The result of a sensitivity analysis: a value for each unit at each level, and its display."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from tersely.json_value import Json
from tersely.searching.quality import OUTPUT_ERROR
from tersely.searching.sensitivity.measured import Measured
from tersely.searching.units import spell_level
from tersely.storage.durable import write_whole
from tersely.text_table import Column, TextTable, ruled


@attrs.frozen(kw_only=True)
class Sensitivity:
    """How much quality each layer of a model costs when it alone is compressed.

    Attributes:
        quality: the measure: a metric's name, or ``output error``.
        dense: the dense model's value; 0 for an error.
        measured: every unit at every level, in the order of the model.
    """

    quality: str
    dense: float
    measured: tuple[Measured, ...]

    def __iter__(self) -> Iterator[Measured]:
        return iter(self.measured)

    def __len__(self) -> int:
        return len(self.measured)

    def worst_first(self, method: str) -> tuple[str, ...]:
        """Return the layers in the order of their losses, the largest first.

        Layers are compared at the strongest level that all of them have.

        Args:
            method: pruning or quantization.
        """
        rows = self._rows(method)
        shared = [key for key in self._columns(method) if all(key in row for row in rows.values())]
        if not shared:
            return tuple(rows)
        strongest = max(shared, key=lambda key: key[1] if key[0] == "sparse_ratio" else -key[1])
        return tuple(sorted(rows, key=lambda layer: -rows[layer][strongest].drop))

    def to_dict(self) -> dict[str, Json]:
        """Return the result as JSON data; infinite values are strings."""
        data: dict[str, Json] = attrs.asdict(self)
        for one in data["measured"]:
            one["modules"] = list(one["modules"])
            for key in ("value", "drop"):
                one[key] = one[key] if abs(one[key]) < float("inf") else str(one[key])
        data["measured"] = list(data["measured"])
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sensitivity:
        """Read back what `to_dict` returned.

        Args:
            data: the data, which may have been through JSON.
        """
        measured = tuple(
            Measured(
                **{
                    **one,
                    "modules": tuple(one["modules"]),
                    "value": float(one["value"]),
                    "drop": float(one["drop"]),
                }
            )
            for one in data["measured"]
        )
        return cls(quality=data["quality"], dense=data["dense"], measured=measured)

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the result as JSON, atomically.

        Args:
            path: the file.
        """
        write_whole(path, json.dumps(self.to_dict(), indent=2) + "\n")

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Plot the result: a row for each layer, a mark for each level.

        Args:
            path: the file; its ending decides the format.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        from tersely.searching.sensitivity.plot import draw  # matplotlib is an extra

        methods = dict.fromkeys(one.method for one in self)
        layers = {method: self.worst_first(method) for method in methods}
        if self.quality == OUTPUT_ERROR:
            scale = "relative error of the output, percent"
        else:
            scale = f"loss of {self.quality}, percent of the dense {self.dense:.4g}"
        draw(self.measured, path, layers=layers, scale=scale)

    def __str__(self) -> str:
        parts = []
        for method in dict.fromkeys(one.method for one in self):
            parts.append("\n".join([self._title(method), *ruled(self._table(method))]))
        return "\n\n".join(parts)

    def _title(self, method: str) -> str:
        if self.quality == OUTPUT_ERROR:
            return f"{method}: relative error of the output, one layer at a time"
        return f"{method}: loss of {self.quality}, in percent of the dense {self.dense:.6g}"

    def _table(self, method: str) -> TextTable:
        rows, keys = self._rows(method), self._columns(method)
        columns = [Column(heading="layer")]
        columns += [Column(heading=spell_level(*key), is_number=True) for key in keys]
        cells = []
        for layer in self.worst_first(method):
            found = [rows[layer].get(key) for key in keys]
            shown = ["" if one is None else f"{one.drop:.2f} %" for one in found]
            cells.append((layer, *shown))
        return TextTable(columns=tuple(columns), rows=tuple(cells))

    def _rows(self, method: str) -> dict[str, dict[tuple[str, float], Measured]]:
        rows: dict[str, dict[tuple[str, float], Measured]] = {}
        for one in self:
            if one.method == method:
                rows.setdefault(one.layer, {})[one.key, one.level] = one
        return rows

    def _columns(self, method: str) -> Sequence[tuple[str, float]]:
        return tuple(dict.fromkeys((one.key, one.level) for one in self if one.method == method))
