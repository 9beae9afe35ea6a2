"""Positions that a mask keeps: hidden states without padding."""

from __future__ import annotations

from torch import Tensor

from tersely_distillation.pairs import feature_dim


def positions_left(
    loss: str, student: Tensor, teacher: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return two tensors without masked positions.

    Args:
        loss: the loss that compares them, for the error.
        student: shape (batch, ..., features) of two or three dimensions, or
            (batch, channels, positions...); float.
        teacher: the student's shape, float.
        mask: None, or the shape without features: positions that are 0 or False are left out.

    Returns:
        Both as they are without a mask; with one, shape (positions left, features).

    Raises:
        ValueError: the mask has another shape.
    """
    if mask is None:
        return student, teacher
    is_left = left(loss, student, mask)
    dim = feature_dim(student)
    return student.movedim(dim, -1)[is_left], teacher.movedim(dim, -1)[is_left]


def left(loss: str, values: Tensor, mask: Tensor) -> Tensor:
    """Return the positions that a mask keeps.

    Args:
        loss: the loss, for the error.
        values: as in `positions_left`.
        mask: the shape without features, any dtype.

    Returns:
        Bool, the mask's shape, on the values' device.

    Raises:
        ValueError: the mask has another shape.
    """
    places = [length for dim, length in enumerate(values.shape) if dim != feature_dim(values)]
    if list(mask.shape) != places:
        raise ValueError(
            f"{loss} has a mask of shape {tuple(mask.shape)} for positions of shape "
            f"{tuple(places)}: the tensors' shape {tuple(values.shape)} without the features"
        )
    return mask.to(values.device) != 0
