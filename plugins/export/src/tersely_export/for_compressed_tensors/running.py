"""A model that transformers loaded compressed, of which one layer at a time becomes floats."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from compressed_tensors.compressors import decompress_module
from compressed_tensors.quantization import QuantizationStatus
from torch import Tensor, nn

_HOOK = "ct_decompress_hook"
Result = TypeVar("Result")


def run_compressed(model: nn.Module, call: Callable[[], Result]) -> Result:
    """Run a model that was loaded compressed, with as little memory as it allows.

    The library decompresses all layers before the first call, so that the model is in memory as
    floats. Here each layer is decompressed by the library when it is called, and only until then.

    Args:
        model: the loaded model.
        call: what runs it.
    """
    try:
        with _one_layer_at_a_time(model):
            return call()
    except Exception:
        # The model's own code may read weights without calling their layer, which is not there
        # then. What else is wrong is wrong again with all of them.
        return call()


@contextlib.contextmanager
def _one_layer_at_a_time(model: nn.Module) -> Iterator[None]:
    hook = model.__dict__.get(_HOOK)
    if hook is None:  # it was loaded as floats
        yield
        return
    layers = [one for one in model.modules() if _is_compressed(one)]
    kept = [dict(one._parameters) for one in layers]
    with contextlib.ExitStack() as undone:
        pre_hooks = model._forward_pre_hooks
        undone.callback(pre_hooks.__setitem__, hook.id, pre_hooks.pop(hook.id))
        for layer, parameters in zip(layers, kept, strict=True):
            undone.callback(_put, layer, parameters)
            _hide(layer, parameters)
            undone.callback(layer.register_forward_pre_hook(_Show(parameters)).remove)
            after = layer.register_forward_hook(_Hide(parameters), always_call=True)
            undone.callback(after.remove)
        yield


def _is_compressed(module: nn.Module) -> bool:
    return bool(getattr(module, "quantization_status", None) == QuantizationStatus.COMPRESSED)


class _Show:
    """Decompresses a layer before it is called."""

    def __init__(self, parameters: dict[str, nn.Parameter | None]) -> None:
        self._parameters = parameters

    def __call__(self, layer: nn.Module, inputs: object) -> None:
        _put(layer, self._parameters)
        decompress_module(layer)


class _Hide:
    """Takes the floats of a layer out of memory after it was called."""

    def __init__(self, parameters: dict[str, nn.Parameter | None]) -> None:
        self._parameters = parameters

    def __call__(self, layer: nn.Module, inputs: object, output: object) -> None:
        _hide(layer, self._parameters)


class _Hidden(nn.Parameter):
    """A weight that is not there; only what models ask of one, such as its type, is answered.

    PyTorch itself computes with a weight on the device meta and an input on the CPU, without an
    error, and returns whatever the memory holds.
    """

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        """Answer a question, and refuse to compute."""
        if func.__name__ in _ASKED:
            with torch._C.DisableTorchFunctionSubclass():
                found: object = func(*args, **(kwargs or {}))
            if not isinstance(found, Tensor):
                return found
        raise RuntimeError("the weight is compressed until its layer is called")


_ASKED = frozenset({"__get__", "size", "dim", "numel", "element_size", "is_floating_point"})


def _hide(layer: nn.Module, parameters: dict[str, nn.Parameter | None]) -> None:
    assert isinstance(layer, nn.Linear)  # the library compresses no others
    shape = (layer.out_features, layer.in_features)
    values = torch.empty(shape, dtype=_dtype(parameters), device="meta")
    _put(layer, {"weight": Tensor._make_subclass(_Hidden, values, False)})
    if "bias" in parameters:
        layer._parameters["bias"] = parameters["bias"]


def _dtype(parameters: dict[str, nn.Parameter | None]) -> torch.dtype:
    scale = parameters["weight_scale"]
    assert scale is not None  # every format has one
    return scale.dtype


def _put(layer: nn.Module, parameters: dict[str, nn.Parameter | None]) -> None:
    layer._parameters.clear()
    layer._parameters.update(parameters)
    layer.quantization_status = QuantizationStatus.COMPRESSED
