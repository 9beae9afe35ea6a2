"""A written model in onnxruntime, called like the original module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
from torch import Tensor
from torch.utils import _pytree

import tersely
from tersely_export.for_onnx.overflow import SETTING


def open_session(
    model: Path | bytes,
    accuracy_level: int,
    *,
    exact_sums: bool = False,
    optimized: Path | None = None,
    threads: int | None = None,
) -> onnxruntime.InferenceSession:
    """Open a model on the CPU.

    Args:
        model: its file, or its bytes.
        accuracy_level: the type in which blocks of 4 bits are multiplied.
        exact_sums: whether to add products so that sums overflow on no processor.
        optimized: where to write the optimized model, or None.
        threads: the number of its threads, or None for its own choice.

    Raises:
        ExportError: onnxruntime lacks an operator of the model.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", str(accuracy_level))
    if exact_sums:
        options.add_session_config_entry(SETTING, "1")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(
            str(model) if isinstance(model, Path) else model,
            options,
            providers=["CPUExecutionProvider"],
        )
    except Exception as error:  # onnxruntime's errors have no common class
        raise tersely.ExportError(
            f"onnxruntime cannot open the file: {error}; it supports few bfloat16 operators on "
            "CPUs: convert such a model with model.float(), or export with check=False for another "
            "device",
            format="onnx",
        ) from error


def as_module(session: onnxruntime.InferenceSession) -> Callable[..., list[Any]]:
    """Return a function with the arguments of the model.

    Args:
        session: an open session.

    Returns:
        A function of positional arguments, in the order of the inputs, and keyword arguments by
        the names of the inputs; returns NumPy arrays.
    """
    names = [one.name for one in session.get_inputs()]

    def call(*args: Any, **kwargs: Any) -> list[Any]:
        given: list[Any] = [leaf for leaf in _pytree.tree_leaves(args) if isinstance(leaf, Tensor)]
        named = {name: kwargs[name] for name in names if name in kwargs}
        left = [name for name in names if name not in named]
        feeds = dict(zip(left, given, strict=True)) | named
        found: list[Any] = session.run(None, {name: _array(one) for name, one in feeds.items()})
        return found

    return call


def _array(value: Any) -> numpy.ndarray:
    return value.detach().numpy() if isinstance(value, Tensor) else numpy.asarray(value)
