"""Attention transfer: where in its input a layer is active."""

from __future__ import annotations

import torch
from torch import Tensor

from tersely_distillation.pairs import both_shapes, feature_dim, in_one_precision
from tersely_distillation.vectors import at_most_one, unit

_WITHOUT_FEATURES = 2


def attention_transfer(
    student: Tensor, teacher: Tensor, *, power: float = 2.0, mask: Tensor | None = None
) -> Tensor:
    """Return the mean squared difference of normalized attention maps.

    Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, equation 2: the map is
    the sum over channels of |activation|^power, scaled to length 1 for each sample. Departs from
    the equation by the mean of squares, as in the authors' own code, instead of the norm of the
    difference, which has no derivative where both maps agree; the factor beta / 2 is lambda.

    Channels are summed over, so student and teacher may differ in their number.

    Args:
        student: shape (batch, channels, positions...) of four or more dimensions,
            (batch, positions, features), or (batch, positions) for a single channel; float.
        teacher: the same but for its channels or features, float.
        power: at least 1; higher values emphasize the most active positions.
        mask: None, or the shape without features: positions that are 0 count as inactive in both,
            and the mean is over the others.

    Returns:
        0-dim, float32 or float64, no unit. A sample that is zero everywhere has a map of zeros and
        gets no gradient.

    Raises:
        ValueError: the tensors differ in batch, positions or number of dimensions, or have no
            positions.
    """
    has_positions = student.dim() >= _WITHOUT_FEATURES
    is_like = student.dim() == teacher.dim() and _places(student) == _places(teacher)
    if not has_positions or not is_like:
        raise ValueError(
            "attention_transfer compares maps of one batch and the same positions, "
            "(batch, positions, features) or (batch, channels, positions...): "
            f"{both_shapes(student, teacher)}"
        )
    student, teacher = in_one_precision(student, teacher)
    if mask is None:
        return (_map(student, power) - _map(teacher, power)).square().mean()
    if list(mask.shape) != _places(student):
        raise ValueError(
            f"attention_transfer has a mask of shape {tuple(mask.shape)} for positions of shape "
            f"{tuple(_places(student))}: the tensors' shape without the features"
        )
    is_left = mask.to(student.device) != 0
    maps = [_map(_only(one, is_left), power) for one in (student, teacher)]
    return (maps[0] - maps[1]).square().sum() / max(int(is_left.sum()), 1)


def _only(tensor: Tensor, is_left: Tensor) -> Tensor:
    """Return activations with zeros at masked positions."""
    if tensor.dim() > _WITHOUT_FEATURES:
        is_left = is_left.unsqueeze(feature_dim(tensor))
    return torch.where(is_left, tensor, 0)


def _places(tensor: Tensor) -> list[int]:
    """Return the shape without features."""
    shape = list(tensor.shape)
    if len(shape) > _WITHOUT_FEATURES:
        del shape[feature_dim(tensor)]
    return shape


def _map(tensor: Tensor, power: float) -> Tensor:
    """Return the attention map of every sample: shape (batch, positions), length 1."""
    active = at_most_one(tensor, tuple(range(1, tensor.dim()))).abs().pow(power)
    if tensor.dim() > _WITHOUT_FEATURES:
        active = active.sum(feature_dim(tensor))
    return unit(active.flatten(1), 1)
