"""Chen et al., Distilling Knowledge via Knowledge Review, CVPR 2021, sections 3.3 and 3.4: deep
features of the student are fused with the shallower ones, one after the other, and what results is
compared with the teacher's on several scales.

Departs from the paper in that maps are fused by convolutions of size 1 alone.
"""

import torch
from torch.nn import functional

import tersely
from tersely.contracts import StatefulLoss

_SIZES = ((4, 0.5), (2, 0.25), (1, 0.125))
"""Lengths to which maps are pooled besides their own, and how much each counts."""


class Review(StatefulLoss):
    """Takes all targets of an entry, shallow ones first, each of shape (batch, channels, h, w).

    Args:
        width: channels of what is fused.
    """

    def __init__(self, *, width: int = 32) -> None:
        super().__init__()
        self.width = width

    def build(self, student, teacher):
        if any(len(shape) != 4 for shape in (*student, *teacher)):
            raise ValueError(
                f"review takes maps of shape (batch, channels, height, width), not "
                f"{[tuple(one) for one in student]}; choose convolutions"
            )
        layers = torch.nn.ModuleList
        convolution = torch.nn.Conv2d
        self.inputs = layers(convolution(shape[1], self.width, 1) for shape in student)
        self.weights = layers(convolution(2 * self.width, 2, 1) for _ in student[1:])
        self.outputs = layers(convolution(self.width, shape[1], 1) for shape in teacher)

    def forward(self, student, teacher):
        fused, total = None, 0
        for i in reversed(range(len(student))):
            own = self.inputs[i](student[i].float())
            if fused is not None:
                deep = functional.interpolate(fused, own.shape[2:], mode="nearest")
                shares = self.weights[i](torch.cat([own, deep], 1)).sigmoid()
                own = own * shares[:, :1] + deep * shares[:, 1:]
            fused = own
            total = total + _on_scales(self.outputs[i](own), teacher[i].float())
        return total


def _on_scales(own, other):
    if own.shape[2:] != other.shape[2:]:
        own = functional.interpolate(own, other.shape[2:], mode="nearest")
    total, parts = 1.0, functional.mse_loss(own, other)
    for size, share in _SIZES:
        if size < min(own.shape[2:]):
            pooled = (functional.adaptive_avg_pool2d(one, size) for one in (own, other))
            parts = parts + share * functional.mse_loss(*pooled)
            total += share
    return parts / total


@tersely.hookimpl
def tersely_distillation_losses():
    return [
        tersely.LossInfo(
            name="review",
            implementation="review:Review",
            summary="Fused features of several layers, on several scales.",
            paper="Chen et al., ReviewKD, CVPR 2021",
            targets=None,
            options={
                "type": "object",
                "properties": {"width": {"type": "integer", "minimum": 1, "default": 32}},
                "additionalProperties": False,
                "examples": [{"width": 8}],
            },
        )
    ]
