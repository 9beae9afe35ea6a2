"""Heo et al., A Comprehensive Overhaul of Feature Distillation (OFD), ICCV 2019, equations 2 to 4:
the teacher's features before a ReLU, cut at a negative margin, and a distance that leaves out what
is negative in both.

Departs from the paper in that the margin is the running mean of what is negative in a channel, not
computed from the batch norm before it.
"""

import torch

import tersely
from tersely.contracts import StatefulLoss


class Overhaul(StatefulLoss):
    """Channels are in dimension 1 of features with positions, and in the last one otherwise.

    Args:
        rate: how fast the margin follows the batches.
    """

    def __init__(self, *, rate: float = 0.1) -> None:
        super().__init__()
        self.rate = rate

    def build(self, student, teacher):
        self.dim = 1 if len(student) > 3 else -1
        self.regressor = torch.nn.Linear(student[self.dim], teacher[self.dim], bias=False)
        self.register_buffer("margin", torch.zeros(teacher[self.dim]))

    def forward(self, student, teacher):
        own = self.regressor(student.float().movedim(self.dim, -1))
        wanted = teacher.float().movedim(self.dim, -1)
        if own.shape != wanted.shape:
            raise ValueError(
                f"overhaul compares features of one size, not {tuple(student.shape)} and "
                f"{tuple(teacher.shape)}; choose modules before the same pooling"
            )
        negative = wanted.clamp(max=0).flatten(0, -2)
        count = (negative < 0).sum(0)
        mean = negative.sum(0) / count.clamp_min(1)
        self.margin += self.rate * (count > 0) * (mean - self.margin)
        wanted = torch.maximum(wanted, self.margin)
        counts = ~((own <= wanted) & (wanted <= 0))
        return ((own - wanted).square() * counts).mean()


@tersely.hookimpl
def tersely_distillation_losses():
    return [
        tersely.LossInfo(
            name="overhaul",
            implementation="overhaul:Overhaul",
            summary="Features before a ReLU, cut at a margin.",
            paper="Heo et al., OFD, ICCV 2019",
            options={
                "type": "object",
                "properties": {
                    "rate": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.1}
                },
                "additionalProperties": False,
                "examples": [{"rate": 0.5}],
            },
        )
    ]
