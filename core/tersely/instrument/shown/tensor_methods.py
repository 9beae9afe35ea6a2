"""Which methods of tensors write into them, view them, or change their shape in place."""

from __future__ import annotations

from torch import Tensor

VIEWS_IN_PLACE = (
    "as_strided_",
    "squeeze_",
    "swapaxes_",
    "swapdims_",
    "t_",
    "transpose_",
    "unsqueeze_",
)
"""Change the shape of a tensor, and leave its memory as it is."""

RESIZES = (
    "resize_",
    "resize_as_",
    "resize_as_sparse_",
    "set_",
    "sparse_resize_",
    "sparse_resize_and_clear_",
)
"""Give a tensor other memory."""

OPERATORS = tuple(
    name
    for name in (
        "__iadd__",
        "__iand__",
        "__idiv__",
        "__ifloordiv__",
        "__ilshift__",
        "__imod__",
        "__imul__",
        "__ior__",
        "__ipow__",
        "__irshift__",
        "__isub__",
        "__itruediv__",
        "__ixor__",
    )
    if hasattr(Tensor, name)
)
"""Write values, and return what is assigned to the name they were written for."""

VIEWS = (
    "__getitem__",
    "as_strided",
    "broadcast_to",
    "chunk",
    "diagonal",
    "dsplit",
    "expand",
    "expand_as",
    "flatten",
    "hsplit",
    "moveaxis",
    "movedim",
    "narrow",
    "permute",
    "ravel",
    "reshape",
    "reshape_as",
    "select",
    "split",
    "split_with_sizes",
    "squeeze",
    "swapaxes",
    "swapdims",
    "t",
    "tensor_split",
    "transpose",
    "unbind",
    "unflatten",
    "unfold",
    "unsafe_chunk",
    "unsafe_split",
    "unsqueeze",
    "view",
    "view_as",
    "vsplit",
)
"""Return a view, several, or a copy where no view can be had."""

VIEW_ATTRIBUTES = ("H", "T", "mH", "mT", "real")
"""Attributes that are views."""


def writes() -> tuple[str, ...]:
    """Return the methods that write values, in place and of the same shape."""
    others = {*VIEWS_IN_PLACE, *RESIZES, "requires_grad_", "share_memory_"}
    return tuple(
        name
        for name in dir(Tensor)
        if name.endswith("_") and not name.startswith("_") and name not in others
    )
