"""Relational distillation: distances between samples and the angles that they form."""

from __future__ import annotations

import torch
from torch import Tensor

from tersely_distillation.pairs import samples
from tersely_distillation.vectors import no_loss, off_diagonal

_SMALLEST_TRIANGLE = 3


def relational(
    student: Tensor, teacher: Tensor, *, distance_weight: float = 1.0, angle_weight: float = 2.0
) -> Tensor:
    """Return the difference between the student's and the teacher's arrangement of samples.

    Park et al., "Relational Knowledge Distillation", CVPR 2019, section 3.2. Distances of all pairs
    are divided by their mean; cosines are those of the angles of all triangles; both go through
    the Huber loss. Departs from the paper in the mean over pairs and over triangles in place of
    sums, so that the weights do not depend on the batch.

    Only the batches must agree, so student and teacher may differ in every other dimension. The
    angles need memory for a few tensors of batch^3 elements; a weight of 0 leaves its part out.

    Args:
        student: shape (batch, ...), float; everything after the batch is one vector.
        teacher: shape (batch, ...), float.
        distance_weight: at least 0, factor of the distances.
        angle_weight: at least 0, factor of the angles; 2 by default, as the paper uses with
            distances of weight 1 for embeddings.

    Returns:
        0-dim, float32 or float64, no unit. 0 for fewer than three samples: they form no angles, and
        the one distance of two is always its own mean. Samples that coincide have a distance of 0,
        no angles (their cosine counts as 0), and no gradient from each other.

    Raises:
        ValueError: there is no batch, or the batches differ.
    """
    student, teacher = samples("relational", student, teacher)
    loss, count = no_loss(student), len(student)
    if count <= 1:
        return loss
    ours, theirs = _distances(student), _distances(teacher)
    if distance_weight:
        huber = _huber(off_diagonal(ours), off_diagonal(theirs))
        loss = loss + distance_weight * huber.mean()
    if angle_weight and count >= _SMALLEST_TRIANGLE:
        huber = _huber(_cosines(ours), _cosines(theirs))
        loss = loss + angle_weight * huber.sum() / (count * (count - 1) * (count - 2))
    return loss


def _huber(student: Tensor, teacher: Tensor) -> Tensor:
    return torch.nn.functional.smooth_l1_loss(student, teacher, reduction="none")


def _distances(rows: Tensor) -> Tensor:
    """Return the distances of all pairs of rows, in units of their mean over distinct pairs."""
    # Differences are exact where rows coincide, unlike products of a matrix with itself, and the
    # gradient of such a distance is zero.
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    mean = off_diagonal(distances).mean()
    return distances / torch.where(mean == 0, 1, mean)


def _cosines(distances: Tensor) -> Tensor:
    """Return the cosine at j between i and k as element (j, i, k); 0 unless all are distinct.

    By the law of cosines, which needs no more memory for longer vectors.
    """
    squares = distances.square()
    nearby = distances == 0
    inverse = torch.where(nearby, 0, 1 / torch.where(nearby, 1, distances))
    inner = (squares[:, :, None] + squares[:, None, :] - squares) / 2
    cosines = inner * inverse[:, :, None] * inverse[:, None, :]
    same = torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    return cosines.masked_fill(same, 0)
