"""Running a model without a trace on it: a copy to run, its inputs, and the module that failed."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import tersely


def traceable_copy(model: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode whose parameters share storage and want gradients.

    Args:
        model: the model; not touched.

    Raises:
        PlanError: the model cannot be copied.
    """
    # Parameters are by far the largest part of a model; only buffers and the rest are duplicated.
    shared = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=parameter.is_floating_point())
        for parameter in model.parameters()
        if not isinstance(parameter, nn.UninitializedParameter)
    }
    try:
        duplicate = copy.deepcopy(model, shared)
    except Exception as error:  # the model's modules are the user's
        raise tersely.PlanError(
            f"the model cannot be traced: copying it raised {describe(error)}; tracing runs a copy "
            f"so that the model stays as it is, so make copy.deepcopy(model) work"
        ) from error
    return duplicate.eval()


@contextmanager
def run_isolated(model: nn.Module) -> Iterator[None]:
    """Let the model run with gradients, and put the random generators back afterwards.

    Args:
        model: tells which devices have a generator that may be used.
    """
    devices = {tensor.device for tensor in [*model.parameters(), *model.buffers()]}
    indices = [device.index or 0 for device in devices if device.type == "cuda"]
    with (
        torch.random.fork_rng(devices=indices),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        yield


def call(model: nn.Module, example_inputs: Any) -> list[Tensor]:
    """Run a model once and return the outputs that have a gradient.

    Args:
        model: a traceable copy.
        example_inputs: a tensor, a tuple or list of arguments, or a mapping of keyword arguments.
            They are copied; floating-point tensors among them want gradients, so that the graph
            knows their place in a concatenation.

    Raises:
        PlanError: the model raised; names the module in which it happened.
    """
    inputs = _prepared(example_inputs)
    running: list[str] = []
    names = {module: name for name, module in model.named_modules()}

    def enter(module: nn.Module, arguments: object) -> None:
        running.append(names[module])

    def leave(module: nn.Module, arguments: object, output: object) -> None:
        running.pop()

    handles = [module.register_forward_pre_hook(enter, prepend=True) for module in names]
    handles += [module.register_forward_hook(leave) for module in names]
    try:
        if isinstance(inputs, Mapping):
            output = model(**inputs)
        elif isinstance(inputs, tuple | list):
            output = model(*inputs)
        else:
            output = model(inputs)
    except Exception as error:  # the model is the user's
        name = running[-1] if running else ""
        where = f"module {name!r} ({type(model.get_submodule(name)).__name__})" if name else "it"
        raise tersely.PlanError(
            f"the model cannot be traced: with the example_inputs, {where} raised "
            f"{describe(error)}; give inputs that the model takes, on its device"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return [tensor for tensor in tensors_of(output) if tensor.grad_fn is not None]


def tensors_of(value: object) -> Iterator[Tensor]:
    """Yield all tensors in nested lists, mappings and data classes."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from tensors_of(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from tensors_of(getattr(value, field.name))


def describe(error: BaseException) -> str:
    """Return an exception as one line: its type and its message."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _prepared(value: Any) -> Any:
    if isinstance(value, Tensor):
        fresh = value.detach()
        if fresh.is_floating_point():
            # No leaf, so that a model which writes into its input may go on doing so.
            return fresh.requires_grad_().clone()
        return fresh.clone()
    if isinstance(value, Mapping):
        return {key: _prepared(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_prepared(item) for item in value)
    return value
