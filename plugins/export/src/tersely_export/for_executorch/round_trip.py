"""The check of a written program in ExecuTorch's runtime, as a whole and layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from executorch.exir._serialize._program import deserialize_pte_binary
from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
from executorch.runtime import Runtime
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Interpreter, Node
from torch.utils import _pytree

import tersely
from tersely_export.agreement import compare, detached_inputs, tensors_of
from tersely_export.for_executorch.program import lower
from tersely_export.layers import Layer, layers_of

_LEVELS = 255


def check_program(
    source: tersely.ExportSource, path: Path, *, least_cosine: float
) -> dict[str, Any]:
    """Compare a written program with the session.

    Args:
        source: the session.
        path: the file.
        least_cosine: the least cosine between outputs, of each layer and of the model.

    Raises:
        ExportError: the runtime's outputs differ.
    """
    inputs = detached_inputs(source.example_inputs)
    run = as_module(path)
    found = run(**inputs) if isinstance(inputs, Mapping) else run(*_positional(inputs))
    outputs, expected = tensors_of(found), tensors_of(source.simulate(inputs))
    agreement = compare(outputs, expected, least_cosine=least_cosine)
    _need_lengths(outputs, expected, least_cosine)
    layers = [one for one in layers_of(source.program) if one.is_product]
    return {
        "quantized_products": len(layers),
        **agreement,
        **(_compare_layers(source, inputs, layers, path, least_cosine) if layers else {}),
    }


def _need_lengths(found: Sequence[Tensor], expected: Sequence[Tensor], least_cosine: float) -> None:
    """Refuse outputs whose norm differs by more than the cosine allows.

    Other weights may lead to outputs of the same direction.
    """
    allowed = (2 * (1 - least_cosine)) ** 0.5
    for one, other in zip(found, expected, strict=True):
        finite = one.isfinite() & other.isfinite()
        length = float(other[finite].double().norm())
        longer = float(one[finite].double().norm()) - length
        if other.is_floating_point() and abs(longer) > allowed * length:
            raise tersely.ExportError(
                f"the norm of the runtime's outputs is {(length + longer):.4g}, and that of the "
                f"session's is {length:.4g}"
            )


def as_module(path: Path, *, threads: int | None = None) -> Callable[..., list[Tensor]]:
    """Return a function with the arguments of the model.

    Args:
        path: the file.
        threads: the number of XNNPACK's threads, or None for its own choice.
    """
    if threads is not None:
        _unsafe_reset_threadpool(threads)
    data = path.read_bytes()
    program = Runtime.get().load_program(data)
    method = program.load_method("forward")

    def call(*args: Any, **kwargs: Any) -> list[Tensor]:
        given = [one for one in _pytree.tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        outputs: Sequence[Tensor] = method.execute(given)
        return list(outputs)

    # A method reads the bytes of its program, which must be kept alive.
    call.held = (data, program)  # type: ignore[attr-defined]  # a function has attributes

    return call


def _positional(inputs: Any) -> Sequence[Any]:
    return inputs if isinstance(inputs, (list, tuple)) else (inputs,)


class _Apart(nn.Module):
    """The layers of a program, each with an input of its own, so that one lowering serves all."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        self._layers = layers

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        return tuple(layer.compute(one) for layer, one in zip(self._layers, given, strict=True))


class _Kept(Interpreter):
    """Runs a graph and records the inputs of the layers."""

    def __init__(self, program: ExportedProgram, layers: Sequence[Layer]) -> None:
        super().__init__(program.graph_module)
        self.wanted = {layer.source.name for layer in layers}
        self.found: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.name in self.wanted:
            self.found[n.name] = value
        return value


def _compare_layers(
    source: tersely.ExportSource,
    inputs: Any,
    layers: Sequence[Layer],
    path: Path,
    least_cosine: float,
) -> dict[str, Any]:
    program = source.program
    kept = _Kept(program, layers)
    leaves = [one for one in _pytree.tree_leaves(inputs) if isinstance(one, Tensor)]
    with torch.no_grad():
        kept.run(*_lifted(program), *leaves)
        given = tuple(kept.found[layer.source.name].contiguous() for layer in layers)
        apart = torch.export.export(_Apart(layers), given)
        expected = [layer.compute(one) for layer, one in zip(layers, given, strict=True)]
    lowered = lower(apart)
    _need_constants(path, lowered.buffer)
    place = path.with_name(f"{path.name}.layers")
    try:
        with place.open("wb") as stream:
            lowered.write_to_file(stream)
        found = as_module(place)(*given)
    finally:
        place.unlink(missing_ok=True)
    errors = []
    dynamic = {one.module for one in source.activations if one.is_dynamic}
    for layer, value, one, other in zip(layers, given, found, expected, strict=True):
        agreement = compare([one], [other], least_cosine=0)
        if agreement["cosine"] < least_cosine:
            raise tersely.ExportError(
                f"the runtime computes something else, a cosine of {agreement['cosine']:.4f}",
                target=layer.module,
            )
        known = layer
        if layer.module in dynamic:
            size = value.amax().clamp_min(0) - value.amin().clamp_max(0)
            known = attrs.evolve(layer, input_scale=float(size) / _LEVELS)
        errors.append(agreement["largest_difference"] / known.step(other))
    return {
        "layers_compared": len(errors),
        "layers_within_one_step": sum(one <= 1 for one in errors),
        "largest_error_in_steps": max(errors),
    }


def _need_constants(path: Path, layers: bytes) -> None:
    """Require that a file holds the constants of its separate layers bit for bit.

    A wrong bias may change outputs by less than rounding does, which no comparison of outputs
    detects.
    """
    held = _constants(path.read_bytes())
    if not _constants(layers) <= held:
        raise tersely.ExportError(
            "the file holds other weights, scales or biases than the session, as XNNPACK has them"
        )


def _constants(program: bytes) -> frozenset[bytes]:
    stored = deserialize_pte_binary(program).named_data
    return frozenset() if stored is None else frozenset(bytes(one) for one in stored.buffers)


def _lifted(program: ExportedProgram) -> list[Any]:
    """Return the stored tensors of a program, in the order of its graph's inputs."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names |= signature.inputs_to_lifted_tensor_constants
    held = {**program.constants, **program.state_dict}
    places = [node.name for node in program.graph.nodes if node.op == "placeholder"]
    return [held[names[place]] for place in places if place in names]
