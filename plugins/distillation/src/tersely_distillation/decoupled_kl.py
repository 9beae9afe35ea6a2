"""Decoupled distillation: the target class and the other classes, weighted separately."""

from __future__ import annotations

import torch
from torch import Tensor

from tersely_distillation.classes import class_rows


def decoupled_kl(
    student: Tensor,
    teacher: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    dim: int = -1,
    mask: Tensor | None = None,
    labels: Tensor | None = None,
) -> Tensor:
    """Return the divergences of the target class and among the other classes, weighted.

    Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, section 3: alpha times the
    divergence of (target, everything else), plus beta times that of the other classes among
    themselves, times T squared. `kl` is the same with beta = 1 - the teacher's probability of the
    target, which suppresses the second part where the teacher is confident. The target is the
    label, as in the paper; without labels it is the class that the teacher ranks first, the lowest
    index among equals. As in `kl`, the sum is divided by the length of dimension 0, or by the
    number of positions that a mask leaves.

    Args:
        student: logits, shape (batch, ..., classes), float, at least two classes.
        teacher: logits, the student's shape, float.
        alpha: at least 0, factor of the target class.
        beta: at least 0, factor of the other classes; 8 suits confident teachers.
        temperature: above 0, divides both logits.
        dim: the dimension that holds classes.
        mask: None, or the logits' shape without classes: positions that are 0 are left out.
        labels: None, or the right classes, the logits' shape without classes, integers.

    Returns:
        0-dim, float32 or float64, nats times temperature squared per sample.

    Raises:
        ValueError: the shapes differ, have no batch, or have a single class; or a label is not a
            class.
    """
    shape = tuple(teacher.shape)
    left = _left(labels, mask)
    student, teacher, count = class_rows(
        "decoupled_kl", student, teacher, dim=dim, mask=mask, rank=2
    )
    classes = teacher.shape[-1]
    if classes == 1:
        where = "the last dimension" if dim == -1 else f"dimension {dim}"
        raise ValueError(f"decoupled_kl needs at least two classes, and {where} of {shape} has one")
    target = teacher.argmax(-1, keepdim=True) if left is None else _targets(left, teacher)
    others = torch.arange(classes - 1, device=teacher.device)
    others = others + (others >= target)
    ours, our_rest = _split(student / temperature, target, others)
    theirs, their_rest = _split(teacher / temperature, target, others)
    loss = alpha * _divergence(ours, theirs) + beta * _divergence(our_rest, their_rest)
    return loss * temperature**2 / count


def _left(labels: Tensor | None, mask: Tensor | None) -> Tensor | None:
    if labels is None or mask is None or mask.shape != labels.shape:
        return labels
    return labels[mask.to(labels.device) != 0]


def _targets(labels: Tensor, teacher: Tensor) -> Tensor:
    """Return the labels, shape (..., 1), of logits with classes in the last dimension."""
    classes = teacher.shape[-1]
    if labels.shape != teacher.shape[:-1] or labels.is_floating_point():
        raise ValueError(
            f"decoupled_kl has labels of shape {tuple(labels.shape)} and {labels.dtype} for logits "
            f"of shape {tuple(teacher.shape)}; expected one integer for each row of classes"
        )
    if bool(((labels < 0) | (labels >= classes)).any()):
        raise ValueError(
            f"decoupled_kl has labels from {int(labels.min())} to {int(labels.max())} for "
            f"{classes} classes; leave positions without a label out by a mask"
        )
    return labels.long().unsqueeze(-1)


def _split(logits: Tensor, target: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities of (target, everything else), and of the others among themselves.

    They are not computed from the probabilities of all classes: where the target's is nearly 1, 1 -
    p would be rounded to 0, and the others' logarithms would lose digits.
    """
    rest = logits.gather(-1, others)
    either = torch.cat([logits.gather(-1, target), rest.logsumexp(-1, keepdim=True)], -1)
    return either.log_softmax(-1), rest.log_softmax(-1)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    return (teacher.exp() * (teacher - student)).sum()
