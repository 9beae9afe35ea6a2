"""An exporter as small as it can be: one file of NumPy arrays."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

import tersely


class Arrays:
    """Every tensor under its name; beside the integers of a weight their scale and zero point."""

    def refusals(self, source: tersely.ExportSource) -> Sequence[tersely.Refusal]:
        """Return what an array cannot say: how inputs and outputs are rounded."""
        return [
            tersely.Refusal("arrays hold no inputs or outputs; quantize weights alone", one.name)
            for one in source.activations
        ]

    def write(self, source: tersely.ExportSource, path: Path) -> Sequence[Path]:
        """Write the file and return it."""
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in source.floats.items()}
        for name, weight in source.integers.items():
            arrays[name] = weight.values.numpy()
            arrays[f"{name}.scale"] = weight.qparams.scale.numpy()
            arrays[f"{name}.zero_point"] = weight.qparams.zero_point.numpy()
        with path.open("wb") as stream:
            numpy.savez(stream, **arrays)
        return [path]

    def check(self, source: tersely.ExportSource, path: Path) -> Mapping[str, object]:
        """Read the file again and compare every integer."""
        with numpy.load(path) as arrays:
            for name, weight in source.integers.items():
                if not numpy.array_equal(arrays[name], weight.values.numpy()):
                    raise tersely.ExportError("other integers were read back", target=name)
        return {"integer_weights_equal": len(source.integers)}
