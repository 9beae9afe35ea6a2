"""Where models run while they are measured: in PyTorch itself, or in an export's runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
from torch import nn

from tersely.contracts.exporter import RunsExport
from tersely.document.job import Export
from tersely.errors import ExportError
from tersely.exporting.export import Exported, MadeExporter, export_source, make_exporter
from tersely.exporting.source import make_source
from tersely.json_value import Json
from tersely.session.session import Session


@attrs.frozen(kw_only=True, eq=False)
class Consumer:
    """A format whose files are measured, with the dense model's own file.

    Attributes:
        export: the format and its options.
        dense: the dense model.
        example_inputs: the inputs it runs with.
        folder: where files are written; it must exist while the returned functions are in use.
        threads: how many threads a file is run with.
    """

    export: Export
    dense: nn.Module
    example_inputs: Any
    folder: Path
    threads: int = 1

    @cached_property
    def dense_run(self) -> Callable[..., object]:
        """A function that runs the dense model's own export, called like the model."""
        shapes = self.export.dynamic_shapes
        return self.run_plain(self.dense, self.example_inputs, self._place(), shapes)

    @cached_property
    def dense_bytes(self) -> int | None:
        """The bytes of the dense model's own export; None if the format holds no dense models."""
        shapes = self.export.dynamic_shapes
        with self.scratch() as folder:
            try:
                return self._write_plain(self.dense, self.example_inputs, folder, shapes).bytes
            except ExportError:
                return None

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a folder for files that are needed for one measurement."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            yield Path(folder)

    def bytes_of(self, session: Session) -> int:
        """Return the size of a session's export in bytes.

        Args:
            session: a session of the whole model, in force.
        """
        shapes = self.export.dynamic_shapes
        with self.scratch() as folder:
            return self._write(session, self.example_inputs, folder, shapes).bytes

    def run_session(
        self, session: Session, inputs: Any, folder: Path, dynamic_shapes: Json = None
    ) -> Callable[..., object]:
        """Export a session and return a function that runs the file, called like the model.

        Args:
            session: in force.
            inputs: example inputs of its model.
            folder: where the file is written; it must exist until the file has run.
            dynamic_shapes: which dimensions may differ, as for `Session.export`.
        """
        return self._load(self._write(session, inputs, folder, dynamic_shapes).paths[0])

    def run_plain(
        self, model: nn.Module, inputs: Any, folder: Path, dynamic_shapes: Json = None
    ) -> Callable[..., object]:
        """Export a model as it is and return a function that runs the file, called like the model.

        Args:
            model: a model without a session.
            inputs: example inputs.
            folder: where the file is written; it must exist until the file has run.
            dynamic_shapes: which dimensions may differ, as for `Session.export`.
        """
        return self._load(self._write_plain(model, inputs, folder, dynamic_shapes).paths[0])

    def _write(self, session: Session, inputs: Any, folder: Path, dynamic_shapes: Json) -> Exported:
        made = self._made
        return session.export(
            made.format,
            folder / f"model{made.suffix}",
            example_inputs=inputs,
            options=self.export.options,
            dynamic_shapes=dynamic_shapes,
            check=False,  # the run of what is found checks it
        )

    def _write_plain(
        self, model: nn.Module, inputs: Any, folder: Path, dynamic_shapes: Json
    ) -> Exported:
        made = self._made
        source = make_source(
            model, (), (), example_inputs=inputs, dynamic_shapes=dynamic_shapes, norms={}
        )
        return export_source(made, source, folder / f"model{made.suffix}", is_checked=False)

    def _load(self, place: Path) -> Callable[..., object]:
        exporter = self._made.exporter
        if not isinstance(exporter, RunsExport):
            raise RuntimeError(f"{self._made.format} does not run, and was not refused")
        return exporter.load(place, threads=self.threads)

    def _place(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))

    @property
    def _made(self) -> MadeExporter:
        return make_exporter(self.export.format, self.export.options)
