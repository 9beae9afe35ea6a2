"""An exporter as small as it can be: one file of NumPy arrays."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

import tersely


class Arrays:
    """Every tensor under its name; beside the integers of a weight their scale and zero point."""

    def refusals(self, source: tersely.ExportSource) -> Sequence[tersely.Refusal]:
        """Return what an array cannot say: how inputs and outputs are rounded, or divided."""
        rounded = [
            tersely.Refusal("arrays hold no inputs or outputs; quantize weights alone", one.name)
            for one in source.activations
        ]
        divided = [
            tersely.Refusal("arrays hold no factors; finalize the session first", name)
            for name, weight in source.integers.items()
            if weight.input_scale is not None
        ]
        return [*rounded, *divided]

    def write(self, source: tersely.ExportSource, path: Path) -> Sequence[Path]:
        """Write the file and return it."""
        with path.open("wb") as stream:
            numpy.savez(stream, **_arrays(source))
        return [path]

    def check(self, source: tersely.ExportSource, path: Path) -> Mapping[str, object]:
        """Read the file again and compare every array."""
        expected = _arrays(source)
        with numpy.load(path) as arrays:
            for name, array in expected.items():
                if not numpy.array_equal(arrays[name], array):
                    raise tersely.ExportError(f"another {name} was read back")
        return {"arrays_equal": len(expected)}


def _arrays(source: tersely.ExportSource) -> dict[str, Any]:
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in source.floats.items()}
    for name, weight in source.integers.items():
        arrays[name] = weight.values.numpy()
        arrays[f"{name}.scale"] = weight.qparams.scale.numpy()
        arrays[f"{name}.zero_point"] = weight.qparams.zero_point.numpy()
    return arrays
