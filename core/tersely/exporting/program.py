"""From a session to an exported program with real integers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from tersely.contracts.calling import call_arguments
from tersely.errors import ExportError, TerselyError
from tersely.exporting.dynamic import Ranges, ranges_of, shapes_of
from tersely.exporting.lengths import lengthened
from tersely.exporting.preparing import with_integers
from tersely.exporting.refusing import Integers
from tersely.exporting.running import run
from tersely.shrinking.graph.capturing import flat_weights_kept, without_caches
from tersely.shrinking.graph.program import evaluating


def make_program(
    model: nn.Module,
    integers: Integers,
    example_inputs: Any,
    *,
    dynamic_shapes: Any = None,
    norms: Mapping[nn.Module, nn.Module],
) -> ExportedProgram:
    """Export a session's model in evaluation mode; the model is restored afterwards.

    Args:
        model: the session's model, attached or finalized.
        integers: its quantized parameters.
        example_inputs: a tensor, a tuple or list of arguments, or a mapping of keyword arguments.
        dynamic_shapes: the dynamic dimensions; see `shapes_of`.
        norms: layers of a finished model -> the batch norm folded into each.

    Returns:
        A program that shares no memory with the model.

    Raises:
        ExportError: a target cannot be held, or ``torch.export`` cannot follow the model.
    """
    try:
        with (
            evaluating(model),
            flat_weights_kept(model),
            without_caches(model),
            with_integers(model, integers, norms=norms),
            warnings.catch_warnings(),
            torch.no_grad(),
        ):
            warnings.simplefilter("ignore")
            exported: ExportedProgram = _traced(
                model, example_inputs, dynamic_shapes
            ).run_decompositions({})
    except TerselyError:
        raise
    except Exception as error:  # the model's own code runs here
        run(model, example_inputs)  # has its own error for wrong inputs
        text = " ".join(str(error).partition("\n\n")[0].split())
        raise ExportError(
            f"torch.export cannot follow {type(model).__name__}: {type(error).__name__}: {text}; "
            "export a module without what it names, or change it as torch.export's guide says"
        ) from error
    _own(exported)
    _keep_ties(exported)
    return exported


def _traced(model: nn.Module, example_inputs: Any, dynamic_shapes: Any) -> ExportedProgram:
    """Export a model; named dimensions get the widest range that the model allows."""

    def traced(ranges: Ranges | None = None) -> ExportedProgram:
        shapes = shapes_of(example_inputs, dynamic_shapes, ranges=ranges)
        args, kwargs = call_arguments(lengthened(example_inputs, shapes))
        found: ExportedProgram = torch.export.export(
            model, args, dict(kwargs), dynamic_shapes=shapes, strict=False
        )
        return found

    try:
        return traced()
    except RuntimeError as error:
        ranges = ranges_of(str(error), dynamic_shapes)
        if ranges is None:
            raise
    return traced(ranges)


def _own(program: ExportedProgram) -> None:
    """Copy the tensors of a program; shared ones stay shared."""
    copies: dict[int, Tensor] = {}
    for held in (program._state_dict, program._constants):
        for name, tensor in held.items():
            if not isinstance(tensor, Tensor):
                continue
            if id(tensor) not in copies:
                copy = tensor.detach().clone()
                if isinstance(tensor, nn.Parameter):
                    copy = nn.Parameter(copy, requires_grad=False)
                copies[id(tensor)] = copy
            held[name] = copies[id(tensor)]


def _keep_ties(program: ExportedProgram) -> None:
    """Keep only the first name of each tensor."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    first: dict[int, Node] = {}
    gone = set()
    for place, name in names.items():
        node, tensor = nodes[place], program._state_dict.get(name)
        if tensor is None:
            continue
        kept = first.setdefault(id(tensor), node)
        if kept is not node:
            node.replace_all_uses_with(kept)
            program.graph.erase_node(node)
            del program._state_dict[name]
            gone.add(place)
    if gone:
        specs = [one for one in signature.input_specs if one.arg.name not in gone]
        signature.input_specs[:] = specs
        program.graph_module.recompile()
