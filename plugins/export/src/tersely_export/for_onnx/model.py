"""From a program to an ONNX model for which runtimes have integer kernels, and to its files."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx_ir as ir
import torch
from torch.export import ExportedProgram

import tersely
from tersely_export.for_onnx.activations import (
    keep_biases_apart,
    keep_residuals_apart,
    shift_to_unsigned,
)
from tersely_export.for_onnx.blocks import read_blocks_in_place
from tersely_export.for_onnx.graph import forget_traces, remove_unused
from tersely_export.for_onnx.integer_products import multiply_integers
from tersely_export.for_onnx.lean import leave_out_known
from tersely_export.for_onnx.translations import table
from tersely_export.for_onnx.weights import (
    gather_integers,
    leave_out_zeros,
    pack_four_bits,
    read_along_first,
    transpose_stored,
)
from tersely_export.layers import Layer, layers_of

_LARGEST = 2**31 - 2**24
"""Bytes of weights that fit into one file of 2 GB together with a graph."""


def make_model(program: ExportedProgram, *, opset: int) -> ir.Model:
    """Translate a program to ONNX.

    Args:
        program: the session's exported program.
        opset: the version of the operators.

    Raises:
        ExportError: an operator of the model has no translation.
    """
    try:
        with _quiet():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                verbose=False,
                optimize=False,
                custom_translation_table=dict(table()),
            )
    except torch.onnx.OnnxExporterError as error:
        raise tersely.ExportError(
            f"torch.onnx cannot translate the program: {_reason(error)}", format="onnx"
        ) from error
    assert exported is not None  # this call writes no file
    read_along_first(exported.model.graph)
    read_blocks_in_place(exported.model.graph)
    with _quiet():
        exported.optimize()
    model: ir.Model = exported.model
    graph = model.graph
    if exported.exported_program is not None:
        _name_as_in(graph, layers_of(program), layers_of(exported.exported_program))
    shift_to_unsigned(graph)
    gather_integers(graph)
    multiply_integers(graph)
    transpose_stored(graph)
    leave_out_zeros(graph)
    pack_four_bits(graph)
    keep_residuals_apart(graph)
    keep_biases_apart(graph)
    remove_unused(graph)
    forget_traces(graph)
    leave_out_known(graph, opset=opset)
    return model


def save_model(model: ir.Model, path: Path, *, is_external: bool) -> Sequence[Path]:
    """Write a model, with its weights in a separate file if one file cannot hold both.

    Args:
        model: the model.
        path: the file.
        is_external: whether weights go to a separate file in any case.

    Returns:
        The files, the model first.
    """
    stored = [one.const_value for one in model.graph.initializers.values()]
    if not is_external and sum(one.nbytes for one in stored if one is not None) < _LARGEST:
        ir.save(model, path)
        return [path]
    digest = hashlib.sha256()
    for one in stored:
        if one is not None:
            digest.update(one.tobytes())
    # The name includes a digest: a new file never replaces one to which an old model refers.
    data = path.with_name(f"{path.name}.{digest.hexdigest()[:8]}.data")
    ir.save(model, path, external_data=data.name)
    return [path, data]


def _name_as_in(graph: ir.Graph, layers: Sequence[Layer], made: Sequence[Layer]) -> None:
    """Name inputs and outputs of layers as the program does; torch.onnx renumbers them."""
    if [one.module for one in layers] != [one.module for one in made]:
        return
    values = {value.name: value for node in graph for value in node.outputs}
    wanted = {
        getattr(ours, part).name: values.get(getattr(theirs, part).name)
        for ours, theirs in zip(layers, made, strict=True)
        for part in ("source", "result")
    }
    for name, value in values.items():
        if name in wanted and wanted[name] is not value:
            value.name = f"{name}_of_onnx"
    for name, value in wanted.items():
        if value is not None:
            value.name = name


def _reason(error: BaseException) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return lines[0] if lines else type(cause).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # Its messages about itself and about missing packages are of no use here.
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
