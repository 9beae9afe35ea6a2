"""The exported program as PyTorch's own file."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import tersely
from tersely.contracts import RunsExport
from tersely_export.agreement import compare, tensors_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _ErrorsAtTheEnd(io.BytesIO):
    """A stream that keeps an error of writing, since PyTorch's archives end the process for one.

    Attributes:
        error: the first error; nothing is written after it.
    """

    def __init__(self, file: io.RawIOBase) -> None:
        super().__init__()
        self.error: OSError | None = None
        self._file = file

    def write(self, data: ReadableBuffer) -> int:
        """Write data and return its length, also where nothing was written."""
        view = memoryview(data).cast("B")
        written = 0
        while self.error is None and written < len(view):
            try:
                written += self._file.write(view[written:]) or 0
            except OSError as error:
                self.error = error
        return len(view)


class Pt2(RunsExport):
    """Writes with `torch.export.save`; the check loads the file and runs it."""

    def refusals(self, source: tersely.ExportSource) -> Sequence[tersely.Refusal]:
        """Return nothing: the file can hold every exported program."""
        return ()

    def write(self, source: tersely.ExportSource, path: Path) -> Sequence[Path]:
        """Write the program.

        Args:
            source: the session.
            path: the file.
        """
        with path.open("wb", buffering=0) as file:
            stream = _ErrorsAtTheEnd(file)
            torch.export.save(source.program, stream)
            if stream.error is not None:
                raise stream.error
        return [path]

    def check(self, source: tersely.ExportSource, path: Path) -> Mapping[str, object]:
        """Load the program, compare its integers and run it on the example inputs.

        Args:
            source: the session.
            path: the file.

        Raises:
            ExportError: it holds other integers, or its outputs differ.
        """
        with path.open("rb") as stream:
            loaded = torch.export.load(stream)
        for name, weight in source.integers.items():
            if not torch.equal(loaded.state_dict[name], weight.values):
                raise tersely.ExportError("other integers were read back", target=name)
        example = source.example_inputs
        with torch.no_grad():
            run = loaded.module()
            if isinstance(example, Mapping):
                found = run(**example)
            else:
                found = run(*(example if isinstance(example, (list, tuple)) else (example,)))
        agreement = compare(
            tensors_of(found), tensors_of(source.simulate(example)), least_cosine=0.999
        )
        return {"integer_weights_equal": len(source.integers), **agreement}

    def load(self, path: Path, *, threads: int) -> Callable[..., object]:  # PyTorch's
        """Return a module that runs a written program, with PyTorch's own number of threads.

        Args:
            path: the file.
            threads: the number of PyTorch's threads, which the caller has set.
        """
        with path.open("rb") as stream:
            module: Callable[..., object] = torch.export.load(stream).module()
        return module
