"""The exported program as PyTorch's own file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

import tersely
from tersely.contracts import RunsExport
from tersely_export.agreement import compare, tensors_of


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
        with path.open("wb") as stream:
            torch.export.save(source.program, stream)
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
