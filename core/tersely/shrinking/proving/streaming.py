"""Running a program in a wider dtype with one weight at a time, for models too large to copy.

All floating-point tensors get one dtype: double precision, or single if weights are half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional
from torch.utils._pytree import tree_leaves, tree_map

from tersely.shrinking.graph.calling import arguments
from tersely.shrinking.graph.program import Program, argument, given, operator_name

_HALVES = (torch.float16, torch.bfloat16)
_AT_ONCE = 1 << 20
"""The elements of a weight that are converted at once."""


def wider_dtype(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """Return the dtype to compare large models in.

    Args:
        tensors: parameters and buffers by name.
    """
    has_halves = any(one.dtype in _HALVES for one in tensors.values())
    return torch.float32 if has_halves else torch.float64


def stream(
    program: Program,
    read: Callable[[str], Tensor],
    inputs: tuple[Sequence[Any], Mapping[str, Any]],
    dtype: torch.dtype,
) -> list[Tensor]:
    """Run a program, and return its floating-point outputs.

    Args:
        program: the program.
        read: returns a parameter or buffer by name; called on every use.
        inputs: arguments and keyword arguments, in the structure of the export.
        dtype: the dtype of floating-point computations.
    """
    last = {one: node for node in program.nodes for one in arguments(node)}
    leaves = iter(tree_leaves((tuple(inputs[0]), dict(inputs[1]))))
    values: dict[Node, Any] = {}
    found: list[Tensor] = []

    def value_of(one: Node) -> Any:
        name = program.parameters.get(one)
        return values[one] if name is None else _wide(read(name).detach(), dtype)

    with torch.no_grad():
        for node in program.nodes:
            if node.op == "placeholder":
                if node in program.constants:
                    values[node] = _wide(program.constants[node], dtype)
                elif node not in program.parameters:
                    values[node] = _wide(next(leaves), dtype)
            elif node.op == "output":
                found = compared(torch.fx.node.map_arg(node.args, value_of))
            elif (name := _weight(program, node)) is not None:
                values[node] = _by_rows(node, read(name).detach(), value_of, dtype)
            else:
                given_values = torch.fx.node.map_arg((node.args, node.kwargs), value_of)
                args, kwargs = tree_map(lambda one: _wide(one, dtype), given_values)
                values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
            for one in [*arguments(node), node]:
                if last.get(one, node) is node:
                    values.pop(one, None)
    return found


def compared(result: Any) -> list[Tensor]:
    """Return the tensors of a result that are compared, complex ones as pairs of real numbers.

    Args:
        result: a model's output.
    """
    leaves = [one for one in tree_leaves(result) if isinstance(one, Tensor)]
    real = [torch.view_as_real(one.resolve_conj()) if one.is_complex() else one for one in leaves]
    return [one for one in real if one.is_floating_point()]


def _wide(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    return dtype if isinstance(value, torch.dtype) and value.is_floating_point else value


def _weight(program: Program, node: Node) -> str | None:
    """Return the parameter that a linear layer or an embedding reads, or None."""
    place = {"linear": 1, "embedding": 0}.get(operator_name(node))
    return None if place is None else program.parameters.get(given(node)[place])


def _by_rows(
    node: Node, weight: Tensor, value_of: Callable[[Node], Any], dtype: torch.dtype
) -> Tensor:
    """Run a linear layer or an embedding without a wider copy of its whole weight."""
    if operator_name(node) == "embedding":
        return functional.embedding(value_of(given(node)[1]), weight).to(dtype)
    x = value_of(given(node)[0])
    columns = max(1, weight.shape[1])
    # One buffer of one size: copies of many sizes would fragment the heap.
    buffer = torch.empty(max(_AT_ONCE, columns), dtype=dtype, device=weight.device)
    result: Tensor = x.new_empty(*x.shape[:-1], weight.shape[0])
    start = 0
    for rows in torch.split(weight, buffer.numel() // columns):
        wide = buffer[: rows.numel()].view(rows.shape).copy_(rows)
        result[..., start : start + len(rows)] = functional.linear(x, wide)
        start += len(rows)
    bias = argument(node, 2)
    return result if bias is None else result + value_of(bias)
