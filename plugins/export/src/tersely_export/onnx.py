"""ONNX with integer weights, arranged for the kernels of onnxruntime and OpenVINO."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import torch
from torch import nn

import tersely
from tersely.contracts import IntegerWeight, RunsExport
from tersely_export.for_onnx.overflow import warn_of_overflow
from tersely_export.grids import grid_of, is_read_in_place
from tersely_export.libraries import need_libraries
from tersely_export.names import module_of

_LARGEST_UNSIGNED = 255
_MATRIX = 2
_LIBRARIES = ("onnx", "onnx_ir", "onnxruntime", "onnxscript")


@attrs.frozen
class Onnx(RunsExport):
    """Writes the session's program as ONNX; the check runs it in onnxruntime.

    Attributes:
        opset: the version of the operators; version 23 has an attention operator.
        accuracy_level: the type in which onnxruntime multiplies blocks of 4 bits when the file is
            checked: 0 the fastest, 1 float32, 4 int8. It is a setting of the session that runs the
            file, ``session.qdq_matmulnbits_accuracy_level``, not a part of the file.
        external_data: whether weights are stored in a separate file, as they always are above 2 GB.
        least_cosine: the least cosine between the outputs of onnxruntime and of the session.
        exact_sums: whether the check uses sums that cannot overflow on processors without VNNI. It
            is a setting of the session that runs the file, ``session.x64quantprecision``, not a
            part of the file.
    """

    opset: int = 21
    accuracy_level: int = 4
    external_data: bool = False
    least_cosine: float = 0.98
    exact_sums: bool = False

    def __attrs_post_init__(self) -> None:
        """Check that the libraries are installed before anything is computed."""
        need_libraries("onnx", *_LIBRARIES)

    def refusals(self, source: tersely.ExportSource) -> Sequence[tersely.Refusal]:
        """Return the targets for which ONNX has no type or operator.

        Args:
            source: the session.
        """
        return [*_refused_weights(source), *_refused_activations(source)]

    def write(self, source: tersely.ExportSource, path: Path) -> Sequence[Path]:
        """Write the model.

        Args:
            source: the session.
            path: the file.
        """
        # Late: asking for refusals, as a job does at its start, needs no ONNX.
        from tersely_export.for_onnx.model import make_model, save_model

        if not self.exact_sums:
            warn_of_overflow(source)
        program = source.program
        source.tell("translate the graph")
        model = make_model(program, opset=self.opset)
        source.tell("write the file")
        return save_model(model, path, is_external=self.external_data)

    def check(self, source: tersely.ExportSource, path: Path) -> Mapping[str, object]:
        """Compare integers bit for bit, and outputs of every quantized layer and of the model.

        Args:
            source: the session.
            path: the file.

        Raises:
            ExportError: the file holds other integers, or onnxruntime's outputs differ.
        """
        # Late, for the same reason.
        from tersely_export.for_onnx.round_trip import check_model

        return check_model(
            source,
            path,
            accuracy_level=self.accuracy_level,
            least_cosine=self.least_cosine,
            exact_sums=self.exact_sums,
        )

    def load(self, path: Path, *, threads: int) -> Callable[..., object]:
        """Return a function that runs a written model in onnxruntime.

        Args:
            path: the file.
            threads: the number of its threads.
        """
        # Late, for the same reason.
        from tersely_export.for_onnx.session import as_module, open_session

        session = open_session(
            path, self.accuracy_level, exact_sums=self.exact_sums, threads=threads
        )
        return as_module(session)


def _refused_weights(source: tersely.ExportSource) -> Iterator[tersely.Refusal]:
    rounded = {one.module for one in source.activations if one.is_input}
    for name, weight in source.integers.items():
        qparams = weight.qparams
        if qparams.zero_point.is_floating_point() and bool(
            (qparams.zero_point != qparams.zero_point.round()).any()
        ):
            yield tersely.Refusal(
                "its zero points lie between integers, which DequantizeLinear does not have; "
                "quantize it with an algorithm that chooses whole ones",
                name,
            )
        elif weight.values.dtype == torch.int32 and qparams.dtype != "int32":
            yield tersely.Refusal(
                f"{qparams.dtype} has no type of ONNX that holds it; take int16 or fewer bits",
                name,
            )
        elif not _has_operator(weight):
            yield tersely.Refusal(
                "DequantizeLinear has one scale for the tensor, for each index of one dimension, "
                f"or for runs along one, and this has {grid_of(weight)}; take granularity "
                "out_channel or a group",
                name,
            )
        elif source.targets[name].module in rounded and _is_by_input(source, name, weight):
            yield tersely.Refusal(
                "it has one scale for each input channel, which is not a product of integers, and "
                "onnxruntime fails on it; take one for each output channel, or leave the input out",
                name,
            )


def _has_operator(weight: IntegerWeight) -> bool:
    size, shape = grid_of(weight).size, weight.values.shape
    cut = [one for one, length in zip(size, shape, strict=True) if one != length]
    # In a matrix, runs are also possible: every index of one dimension, and blocks of the other.
    is_runs = len(shape) == len(cut) == _MATRIX and 1 in cut
    return not cut or cut == [1] or is_runs or is_read_in_place(size, shape)


def _is_by_input(source: tersely.ExportSource, name: str, weight: IntegerWeight) -> bool:
    size, shape = grid_of(weight).size, tuple(weight.values.shape)
    if len(shape) != _MATRIX or isinstance(module_of(source, name), nn.Linear):
        return False
    return size == (1, shape[1]) and shape[0] > 1


def _refused_activations(source: tersely.ExportSource) -> Iterator[tersely.Refusal]:
    for one in source.activations:
        if one.quant_min >= 0 and one.quant_max > _LARGEST_UNSIGNED:
            yield tersely.Refusal(
                f"{one.dtype} inputs and outputs have no kernels; take uint8, or int16", one.name
            )
        elif one.is_dynamic and one.blocks not in ("tensor", "token"):
            yield tersely.Refusal(
                "only one scale for the tensor, or one for each token, is computed at each call "
                "by runtimes; take granularity default or per_token",
                one.name,
            )
