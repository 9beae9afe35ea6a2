"""Ahn et al., Variational Information Distillation for Knowledge Transfer (VID), CVPR 2019,
equation 5: the likelihood of the teacher's features given the student's, under a normal
distribution with a learned mean and a learned variance of each channel.

Departs from the paper in that the mean is one linear map of channels, not three convolutions.
"""

import torch

import tersely
from tersely.contracts import StatefulLoss

_SMALLEST = 1e-3


class Variational(StatefulLoss):
    """Channels are in dimension 1 of features with positions, and in the last one otherwise.

    Args:
        variance: the initial variance.
    """

    def __init__(self, *, variance: float = 5.0) -> None:
        super().__init__()
        self.variance = variance

    def build(self, student, teacher):
        self.dim = 1 if len(student) > 3 else -1
        self.mean = torch.nn.Linear(student[self.dim], teacher[self.dim], bias=False)
        # softplus(alpha) is the variance
        alpha = torch.tensor(self.variance - _SMALLEST).expm1().log()
        self.alpha = torch.nn.Parameter(alpha.expand(teacher[self.dim]).clone())

    def forward(self, student, teacher):
        mean = self.mean(student.float().movedim(self.dim, -1))
        wanted = teacher.float().movedim(self.dim, -1)
        if mean.shape != wanted.shape:
            raise ValueError(
                f"variational compares features of one size, not {tuple(student.shape)} and "
                f"{tuple(teacher.shape)}; choose modules before the same pooling"
            )
        variance = torch.nn.functional.softplus(self.alpha) + _SMALLEST
        return ((wanted - mean).square() / variance + variance.log()).mean() / 2


@tersely.hookimpl
def tersely_distillation_losses():
    return [
        tersely.LossInfo(
            name="variational",
            implementation="variational:Variational",
            summary="Likelihood of the teacher's features, with learned variances.",
            paper="Ahn et al., VID, CVPR 2019",
            options={
                "type": "object",
                "properties": {
                    "variance": {"type": "number", "exclusiveMinimum": 0.01, "default": 5.0}
                },
                "additionalProperties": False,
                "examples": [{"variance": 1.0}],
            },
        )
    ]
