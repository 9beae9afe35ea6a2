"""The dependency tracer: finds parameters that share channels in the graph that shrinking uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from tersely.contracts.calling import call_arguments
from tersely.contracts.tracer import SharedChannels
from tersely.errors import PlanError
from tersely.registry.collect import describe
from tersely.shrinking.graph.members import members_of, share
from tersely.shrinking.graph.program import Program, read_program
from tersely.shrinking.graph.runs import Runs
from tersely.shrinking.graph.ties import Ties
from tersely.shrinking.graph.twin import twin_of
from tersely.shrinking.operators.walk import walk


class ExportedGraphTracer:
    """Finds shared channels on the graph of ``torch.export``, with the rules of ``shrink``."""

    def trace(
        self, model: nn.Module, example_inputs: Any, *, parameters: Sequence[str]
    ) -> Sequence[SharedChannels]:
        """Return which parameters share output channels.

        Args:
            model: the model; a copy that shares the storage of its parameters is exported, so the
                model does not change. It may be on the meta device.
            example_inputs: a tensor, a tuple or list of arguments, or a mapping of keyword
                arguments, on the model's device.
            parameters: names as in ``named_parameters()``.

        Raises:
            PlanError: the model cannot be exported or followed, or its ties are not one-to-one; the
                error names the module or operator.
        """
        twin = _twin(model)
        with _isolated(twin):
            program = _program(twin, example_inputs)
        buffers = dict(twin.named_buffers(remove_duplicate=False))
        tensors = {**dict(twin.named_parameters(remove_duplicate=False)), **buffers}
        own = {id(tensor): name for name, tensor in reversed(list(tensors.items()))}
        known = {name: own[id(tensors[name])] for name in tensors}
        program = _renamed(program, known)
        labels = Ties(known[name] for name in buffers)
        trace = walk(program, Unread(tensors), labels=labels)
        names = {name: known[name] for name in parameters}
        return share(members_of(twin, program, trace, labels, names), Runs(labels))


class Unread:
    """Parameters, whose values are not needed, and buffers, which may hold indices.

    Args:
        tensors: parameters and buffers by name.
    """

    is_rounded = False

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """Return a buffer, or some of its rows; of a parameter, zeros of its shape."""
        tensor = self._tensors[name] if rows is None else self._tensors[name][rows]
        if isinstance(self._tensors[name], nn.Parameter) or tensor.is_meta:
            return torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
        return tensor

    def dense(self, name: str) -> Tensor:
        """Return the same."""
        return self.read(name)

    def kept(self, name: str) -> None:
        """Return None: there are no masks."""


def _renamed(program: Program, known: dict[str, str]) -> Program:
    """The program with one name for each parameter, also where two modules share one."""
    parameters = {node: known[name] for node, name in program.parameters.items()}
    written = {node: known[name] for node, name in program.written.items()}
    return attrs.evolve(program, parameters=parameters, written=written)


def _twin(model: nn.Module) -> nn.Module:
    try:
        return twin_of(model)
    except Exception as error:  # the model's modules are the user's
        raise PlanError(
            f"the model cannot be traced: copying it raised {describe(error)}; tracing runs a copy "
            "so that the model stays as it is, so make copy.deepcopy(model) work"
        ) from error


@contextmanager
def _isolated(model: nn.Module) -> Iterator[None]:
    """Restore the random generators afterwards."""
    devices = {tensor.device for tensor in [*model.parameters(), *model.buffers()]}
    indices = [device.index or 0 for device in devices if device.type == "cuda"]
    with torch.random.fork_rng(devices=indices), torch.inference_mode(False):
        yield


def _program(model: nn.Module, example_inputs: Any) -> Program:
    args, kwargs = call_arguments(example_inputs)
    try:
        return read_program(model, args, kwargs)
    except Exception as error:  # the model is the user's
        name = _raising(model, error)
        where = f"module {name!r} ({type(model.get_submodule(name)).__name__})" if name else "it"
        raise PlanError(
            f"the model cannot be traced: with the example_inputs, {where} raised "
            f"{_first_line(error)}; give inputs that the model takes, on its device, and take "
            "branches that depend on values out of forward"
        ) from error


def _first_line(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _raising(model: nn.Module, error: BaseException) -> str:
    """The innermost module in whose forward an error was raised; empty for the root."""
    paths = {id(module): path for path, module in model.named_modules()}
    found, step = "", error.__traceback__
    while step is not None:
        found = paths.get(id(step.tb_frame.f_locals.get("self")), found) or found
        step = step.tb_next
    return found
