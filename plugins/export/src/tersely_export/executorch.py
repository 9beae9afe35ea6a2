"""Programs of ExecuTorch whose quantized layers run in XNNPACK."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs

import tersely
from tersely.contracts import RunsExport
from tersely_export.for_executorch.schemes import refused_activations, refused_weights
from tersely_export.libraries import need_libraries


@attrs.frozen
class Executorch(RunsExport):
    """Writes a ``.pte``; the check runs it, and every layer, in ExecuTorch's runtime.

    Attributes:
        least_cosine: the least cosine between the outputs of the runtime and of the session.
    """

    least_cosine: float = 0.98

    def __attrs_post_init__(self) -> None:
        """Check that the library is installed before anything is computed."""
        need_libraries("executorch", "executorch.exir", "executorch.runtime")

    def refusals(self, source: tersely.ExportSource) -> Sequence[tersely.Refusal]:
        """Return the targets for which XNNPACK has no kernel.

        Args:
            source: the session.
        """
        return [*refused_weights(source), *refused_activations(source)]

    def write(self, source: tersely.ExportSource, path: Path) -> Sequence[Path]:
        """Write the program.

        Args:
            source: the session.
            path: the file.

        Raises:
            ExportError: a quantized layer would run outside XNNPACK.
        """
        # Late: asking for refusals, as a job does at its start, needs no ExecuTorch.
        from tersely_export.for_executorch.program import lower

        program = source.program
        source.tell("hand the graph to XNNPACK")
        lowered = lower(program)
        source.tell("write the file")
        with path.open("wb") as stream:
            lowered.write_to_file(stream)
        return [path]

    def check(self, source: tersely.ExportSource, path: Path) -> Mapping[str, object]:
        """Run the file and every quantized layer, and compare their outputs with the session's.

        Args:
            source: the session.
            path: the file.

        Raises:
            ExportError: the runtime's outputs differ.
        """
        # Late, as in `write`.
        from tersely_export.for_executorch.round_trip import check_program

        return check_program(source, path, least_cosine=self.least_cosine)

    def load(self, path: Path, *, threads: int) -> Callable[..., object]:
        """Return a function that runs a written program.

        Args:
            path: the file.
            threads: the number of XNNPACK's threads, in the whole process.
        """
        # Late, as in `write`.
        from tersely_export.for_executorch.round_trip import as_module

        return as_module(path, threads=threads)
