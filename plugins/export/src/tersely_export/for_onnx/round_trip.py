"""The check of a file in onnxruntime: integers, kernels, layers and outputs."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import onnx
import onnx_ir as ir
import torch
from torch import Tensor
from torch.utils import _pytree

import tersely
from tersely_export.agreement import compare, detached_inputs, tensors_of
from tersely_export.for_onnx.float_products import (
    float_products,
    products_of_wide_inputs,
    warn_of_floats,
)
from tersely_export.for_onnx.overflow import cause
from tersely_export.for_onnx.session import open_session
from tersely_export.for_onnx.weights import LAYOUT
from tersely_export.layers import Layer, layers_of

_RUNTIME = "onnxruntime"

INTEGER_KERNELS = (
    "ConvInteger",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "QGemm",
    "QLinearConv",
    "QLinearMatMul",
)
"""Operators of onnxruntime that multiply integers."""

_FLOAT = 1
"""The accuracy level at which weights are multiplied by float32 inputs."""

_TOO_FAR = 2.0
"""The steps from which a layer counts as different; two inputs that round the other way differ
less."""

_LARGEST = 2**30
"""The most bytes of a model whose layers are compared, for which it is in memory twice."""


def check_model(
    source: tersely.ExportSource,
    path: Path,
    *,
    accuracy_level: int,
    least_cosine: float,
    exact_sums: bool = False,
) -> dict[str, Any]:
    """Compare a written model with the session.

    Args:
        source: the session.
        path: the model's file.
        accuracy_level: the type in which onnxruntime multiplies blocks of 4 bits.
        least_cosine: the least cosine between the outputs.
        exact_sums: whether to add products so that sums overflow on no processor.

    Raises:
        ExportError: it holds other integers, or onnxruntime's outputs differ.
    """
    model = ir.load(path)
    _need_integers(source, model)
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        session = open_session(path, accuracy_level, exact_sums=exact_sums, optimized=optimized)
        made = onnx.load(optimized, load_external_data=False)
    kernels = Counter(node.op_type for node in made.graph.node)
    feeds = _feeds(source, {one.name for one in session.get_inputs()})
    found = [torch.from_numpy(one) for one in session.run(None, feeds)]
    expected = tensors_of(source.simulate(source.example_inputs))
    blame = "" if exact_sums else cause(source)
    agreement = compare(found, expected, least_cosine=least_cosine, cause=blame)
    has_blocks = kernels["MatMulNBits"] > 0
    kernels["MatMulNBits"] -= products_of_wide_inputs(made.graph)
    integer = {name: kernels[name] for name in INTEGER_KERNELS if kernels[name]}
    layers = layers_of(source.program)
    checks: dict[str, Any] = {
        "integer_weights_equal": len(source.integers),
        "quantized_products": sum(one.is_product for one in layers),
        "integer_kernels": sum(integer.values()),
        "kernels": integer,
        **agreement,
    }
    floats = float_products(source, made)
    if floats:
        checks["float_products"] = floats
        if not source.runtimes or _RUNTIME in source.runtimes:
            warn_of_floats(floats, _RUNTIME)
    if has_blocks:
        checks["accuracy_level"] = accuracy_level
    if exact_sums:
        checks["exact_sums"] = True
    if path.stat().st_size < _LARGEST and layers:
        source.tell("compare the layers")
        checks |= _compare_layers(source, model, path, feeds, exact_sums=exact_sums)
    return checks


def _need_integers(source: tersely.ExportSource, model: ir.Model) -> None:
    for name, weight in source.integers.items():
        # A tied weight is stored under the first of its names.
        names = (name, *source.targets[name].shared_with)
        held = next(filter(None, map(model.graph.initializers.get, names)), None)
        if held is None or held.const_value is None:
            raise tersely.ExportError("the file does not hold its integers", target=name)
        values = held.const_value.numpy()
        if held.metadata_props.get(LAYOUT) == "transposed":
            values = values.T
        if not numpy.array_equal(values.astype(numpy.int64), weight.values.cpu().long().numpy()):
            raise tersely.ExportError("the file holds other integers", target=name)


def _feeds(source: tersely.ExportSource, wanted: set[str]) -> Mapping[str, numpy.ndarray]:
    leaves = _pytree.tree_leaves(detached_inputs(source.example_inputs))
    names = source.program.graph_signature.user_inputs
    return {
        str(name): value.numpy()
        for name, value in zip(names, leaves, strict=True)
        if isinstance(value, Tensor) and name in wanted
    }


def _compare_layers(
    source: tersely.ExportSource,
    model: ir.Model,
    path: Path,
    feeds: Mapping[str, numpy.ndarray],
    *,
    exact_sums: bool,
) -> dict[str, Any]:
    graph = model.graph
    values = {one.name: one for node in graph for one in node.outputs}
    known = {*values, *(one.name for one in graph.inputs)}
    compared = [
        one for one in layers_of(source.program) if {one.source.name, one.result.name} <= known
    ]
    shown = {one.name for one in graph.outputs}
    for layer in compared:
        for name in (layer.source.name, layer.result.name):
            if name in values and name not in shown:
                graph.outputs.append(values[name])
                shown.add(name)
    # Next to the model, where weights in a separate file are found.
    place = path.with_name(f"{path.name}.layers")
    try:
        ir.save(model, place)
        # What a runtime rounds on its own shows in the outputs, at the end.
        session = open_session(place, _FLOAT, exact_sums=exact_sums)
        names = [one.name for one in session.get_outputs()]
        found = {**feeds, **dict(zip(names, session.run(None, feeds), strict=True))}
    finally:
        place.unlink(missing_ok=True)
    errors: list[tuple[float, str]] = []
    for layer in compared:  # a module that is called twice counts twice
        given = torch.from_numpy(numpy.asarray(found[layer.source.name]))
        expected = layer.compute(given)
        result = torch.from_numpy(found[layer.result.name])
        errors.append((_steps_apart(layer, result, expected), layer.module))
    largest, worst = max(errors, default=(0.0, ""))
    if largest > _TOO_FAR:
        blame = "" if exact_sums else cause(source, worst)
        raise tersely.ExportError(
            "onnxruntime computes this layer differently from the session on the same input: "
            f"{largest:.1f} steps apart, expected 1{blame}",
            target=worst,
            format="onnx",
        )
    return {
        "layers_compared": len(compared),
        "layers_within_one_step": sum(one <= 1.0 for one, _ in errors),
        "largest_error_in_steps": largest,
    }


def _steps_apart(layer: Layer, result: Tensor, expected: Tensor) -> float:
    """Return the difference of two outputs in steps; infinite values and NaN must be the same."""
    same = (result == expected) | (result.isnan() & expected.isnan())
    if bool(same.all()):
        return 0.0
    apart = (result - expected).abs()[~same].nan_to_num(float("inf"))
    finite = expected[expected.isfinite()]
    return float(apart.max()) / layer.step(finite) if finite.numel() else float("inf")
