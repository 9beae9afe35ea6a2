"""What a session did to a model, as frozen data that prints, and writes JSON and one HTML page."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from tersely.errors import SessionFileError
from tersely.json_value import Json
from tersely.reporting.data import ReportData
from tersely.reporting.measuring.timings import Benchmark
from tersely.reporting.rows import Layer, Moment, Remark, ReportRow
from tersely.reporting.shape import report_shape
from tersely.shrinking.report import Shrunk
from tersely.storage.durable import write_whole
from tersely.storage.json_file import check_shape, read_json_file

if TYPE_CHECKING:
    from rich.console import RenderableType

FORMAT = "tersely-report"
VERSION = 1

_ADVICE = "run the job again"


class SparsityWarning(UserWarning):
    """A session masked another share of a target than its config asks for, or all of it."""


def read_report(path: str | os.PathLike[str]) -> Report:
    """Read a report back from the JSON file of a finished run.

    Args:
        path: a file that holds ``Report.to_dict()``.

    Raises:
        SessionFileError: there is no such file, or it is not a report.
    """
    place = Path(path)
    try:
        data = read_json_file(place, advice=_ADVICE)
    except FileNotFoundError as error:
        raise SessionFileError(
            f"{place} does not exist; give the output folder of a finished `tersely run`",
            path=place,
        ) from error
    except SessionFileError:
        raise
    except OSError as error:
        raise SessionFileError(
            f"{place} cannot be read: {error.strerror or error}", path=place
        ) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise SessionFileError(f"{place} is not a report: it has no format {FORMAT!r}", path=place)
    if data.get("version") != VERSION:
        raise SessionFileError(
            f"{place} has report format {data.get('version')!r}, this tersely reads {VERSION}; "
            "run the job again or install the version that wrote it",
            path=place,
        )
    check_shape(data, report_shape(), place=place, advice=_ADVICE)
    return Report.from_dict(data)


@attrs.frozen(kw_only=True)
class Report(ReportData):
    """A session's result; print it, or write it with `to_html`.

    What it holds is listed at `tersely.reporting.data.ReportData`.
    """

    def to_dict(self) -> dict[str, Json]:
        """Return the report as JSON data; numbers that are not finite become null."""
        data = {**attrs.asdict(self), "shrinks": [one.to_dict() for one in self.shrinks]}
        size = self.quantized_size
        totals = {
            "elements": self.elements,
            "masked": self.masked,
            "sparsity": self.sparsity,
            "quantized": size.elements,
            "quantized_bits": size.bits,
        }
        document = {"format": FORMAT, "version": VERSION, "totals": totals, **data}
        plain: dict[str, Json] = _finite(document)
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Json]) -> Report:
        """Rebuild a report from what `to_dict` returned.

        Args:
            data: JSON data.

        Raises:
            KeyError: a part is missing.
            TypeError: a part has fields this version does not know.
        """
        return cls(
            rows=tuple(ReportRow(**row) for row in data["rows"]),
            warnings=tuple(data["warnings"]),
            remarks=tuple(Remark(**remark) for remark in data["remarks"]),
            metrics={
                name: math.nan if value is None else float(value)
                for name, value in data["metrics"].items()
            },
            history=tuple(Moment(**moment) for moment in data["history"]),
            shrinks=tuple(Shrunk.from_dict(one) for one in data.get("shrinks", ())),
            files=dict(data.get("files", {})),
            benchmarks=tuple(Benchmark.from_dict(one) for one in data.get("benchmarks", ())),
            layers=tuple(Layer(**one) for one in data.get("layers", ())),
            macs=dict(data.get("macs", {})),
            recipe=data.get("recipe", {}),
            versions=dict(data["versions"]),
            model_elements=data["model_elements"],
        )

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the report as a JSON file, whole or not at all.

        Args:
            path: the file.

        Raises:
            OSError: it cannot be written.
        """
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        write_whole(path, text + "\n")

    def to_html(self, path: str | os.PathLike[str], *, title: str = "Compression report") -> None:
        """Write the report as one HTML file that needs nothing else, whole or not at all.

        Args:
            path: the file.
            title: the page's heading.

        Raises:
            MissingExtraError: jinja2 or matplotlib is not installed.
            OSError: it cannot be written.
        """
        from tersely.reporting.page.page import render_page  # jinja2 and matplotlib load slowly

        write_whole(path, render_page(self, title=title))

    def __str__(self) -> str:
        from tersely.reporting.printing.table import (
            report_text,  # it reads the classes of this module
        )

        return report_text(self)

    def __rich__(self) -> RenderableType:
        from tersely.reporting.printing.terminal import report_table  # rich itself asks for it

        return report_table(self)


def _finite(value: Json) -> Json:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return value
