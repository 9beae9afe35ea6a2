"""Preparing an exported program for ExecuTorch's partitioner, and lowering it to XNNPACK."""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
from torch.export import ExportedProgram
from torch.fx import Graph, Node

import tersely

_OPERATORS = torch.ops.quantized_decomposed
_FIXED = (_OPERATORS.quantize_per_tensor.default, _OPERATORS.dequantize_per_tensor.default)
_GROUPS = _OPERATORS.dequantize_per_channel_group.default
_CHANNELS = _OPERATORS.dequantize_per_channel.default
_FULL = (-128, 127)
_FOUR_BITS = (-8, 7)
_UNSIGNED_SHIFT = 128


def lower(program: ExportedProgram) -> Any:
    """Return an ExecuTorch program.

    Args:
        program: the session's exported program, which is not changed.

    Raises:
        ExportError: a quantized layer would run outside XNNPACK.
    """
    arranged = copy.deepcopy(program)
    _arrange(arranged)
    # XNNPACK's passes draw inputs for the patterns that they look for.
    with torch.random.fork_rng(devices=[]):
        edge = to_edge_transform_and_lower(
            arranged,
            partitioner=[XnnpackPartitioner()],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
    left = dict.fromkeys(
        _module_of(node)
        for node in edge.exported_program().graph.nodes
        if node.op == "call_function" and "quantized_decomposed" in str(node.target)
    )
    if left:
        reason = (
            "XNNPACK does not take it, and ExecuTorch would make floats of its integers at each "
            "call; quantize input, weight and output of the layer, or leave it out"
        )
        raise tersely.ExportError([tersely.Refusal(reason, name) for name in left])
    return edge.to_executorch()


def _arrange(program: ExportedProgram) -> None:
    graph = program.graph
    for node in list(graph.nodes):
        if node.target is _OPERATORS.quantize_per_token.default:
            _choose_in_runtime(graph, node)
        elif node.target in _FIXED:
            _shift_to_signed(node)
        elif node.target in (_GROUPS, _CHANNELS):
            # Four bits are recognized by their limits; everything else has the limits of int8.
            at = 3 if node.target is _GROUPS else 4
            low, high = node.args[at : at + 2]
            fits = _FOUR_BITS[0] <= low and high <= _FOUR_BITS[1]
            limits = _FOUR_BITS if fits else _FULL
            node.args = (*node.args[:at], *limits, *node.args[at + 2 :])
    for node in list(graph.nodes):
        if node.target is _GROUPS:
            node.args = (
                node.args[0],
                *(_stored_as_viewed(program, one) for one in node.args[1:3]),
                *node.args[3:],
            )
    graph.eliminate_dead_code()
    graph.lint()
    program.graph_module.recompile()


def _choose_in_runtime(graph: Graph, rounding: Node) -> None:
    # XNNPACK computes scales by token itself if it finds this operator.
    value = rounding.args[0]
    assert isinstance(value, Node)
    choose = _OPERATORS.choose_qparams_per_token_asymmetric.default
    with graph.inserting_before(rounding):
        chosen = graph.call_function(choose, (value, torch.int8))
        parts = [graph.call_function(operator.getitem, (chosen, at)) for at in (0, 1)]
    example = value.meta["val"]
    with example.fake_mode:
        chosen.meta["val"] = choose(example, torch.int8)
    for at, part in enumerate(parts):
        part.meta["val"] = chosen.meta["val"][at]
    for node in (chosen, *parts):
        node.meta["nn_module_stack"] = rounding.meta.get("nn_module_stack")
    rounding.args = (value, *parts, *_FULL, torch.int8)
    rounding.meta["val"] = rounding.meta["val"].to(torch.int8)
    for reader in list(rounding.users):
        reader.args = (rounding, *parts, *_FULL, torch.int8, *reader.args[6:])


def _shift_to_signed(node: Node) -> None:
    value, scale, zero_point, low, _, stored = node.args
    assert isinstance(zero_point, int)
    shift = _UNSIGNED_SHIFT if stored is torch.uint8 and isinstance(low, int) and low >= 0 else 0
    node.args = (value, scale, zero_point - shift, *_FULL, torch.int8)
    if node.target is _FIXED[0]:
        node.meta["val"] = node.meta["val"].to(torch.int8)


def _stored_as_viewed(program: ExportedProgram, view: Any) -> Any:
    # Scales must be stored tensors, not views.
    if not isinstance(view, Node) or view.op == "placeholder":
        return view
    stored = view.args[0]
    assert isinstance(stored, Node)
    shape = tuple(view.meta["val"].shape)
    signature = program.graph_signature
    buffer = signature.inputs_to_buffers.get(stored.name)
    if buffer is not None:
        program.state_dict[buffer] = program.state_dict[buffer].reshape(shape)
    else:
        name = signature.inputs_to_lifted_tensor_constants[stored.name]
        constant = program.constants[name]
        assert isinstance(constant, torch.Tensor)
        program.constants[name] = constant.reshape(shape)
    stored.meta["val"] = view.meta["val"]
    view.replace_all_uses_with(stored)
    return stored


def _module_of(node: Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {"": ("", None)}).values())
    return str(stack[-1][0]).partition("@")[0] or node.name
