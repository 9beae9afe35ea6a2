"""Whether operators run eagerly on plain tensors, without modes, transforms or tracing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad


def is_eager() -> bool:
    """Tell whether operators only compute, on the processor, in the dtype they are given.

    Not so while a model is compiled, exported or traced, inside the transforms of ``torch.func``
    and forward-mode differentiation, under modes that intercept operators, and under autocast.
    """
    # First, since torch.compile leaves out what follows and need not understand it.
    if torch.compiler.is_compiling():
        return False
    return not (
        torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or forward_ad._current_level >= 0
        or torch.is_autocast_enabled("cpu")
    )


def are_plain(*tensors: Tensor | None) -> bool:
    """Tell whether tensors are dense, on the processor, of one of two dtypes, and no subclass.

    Args:
        *tensors: the tensors of one product; None is left out.
    """
    dtypes = set()
    for tensor in tensors:
        if tensor is None:
            continue
        if type(tensor) is not Tensor and type(tensor) is not nn.Parameter:
            return False
        if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
            return False
        # What vmap makes has the type of plain tensors; backward meets it for batched gradients.
        if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            return False
        if torch._C._functorch.is_legacy_batchedtensor(tensor):
            return False
        dtypes.add(tensor.dtype)
    return dtypes in ({torch.float32}, {torch.float64})
