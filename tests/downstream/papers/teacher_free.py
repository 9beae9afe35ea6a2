"""Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization (Tf-KD), CVPR
2020, equation 8: a virtual teacher that is right with a given probability.
"""

import torch
from torch.nn import functional

import tersely


def teacher_free(
    student: torch.Tensor,
    teacher: None,
    *,
    labels: torch.Tensor,
    correct: float = 0.9,
    temperature: float = 20.0,
) -> torch.Tensor:
    if student.dim() != 2 or len(student) != len(labels):
        raise ValueError(
            f"teacher_free takes logits of shape (batch, classes) and as many labels, not "
            f"{tuple(student.shape)} and {tuple(labels.shape)}"
        )
    classes = student.shape[1]
    virtual = torch.full((classes, classes), (1 - correct) / max(classes - 1, 1))
    virtual.fill_diagonal_(correct)
    wanted = (virtual.to(student.device)[labels.long()] / temperature).softmax(1)
    own = (student.float() / temperature).log_softmax(1)
    return functional.kl_div(own, wanted, reduction="batchmean") * temperature**2


@tersely.hookimpl
def tersely_distillation_losses():
    return [
        tersely.LossInfo(
            name="teacher_free",
            implementation="teacher_free:teacher_free",
            summary="A virtual teacher that is mostly right.",
            paper="Yuan et al., Tf-KD, CVPR 2020",
            needs="nothing",
            batch_options=("labels",),
            options={
                "type": "object",
                "properties": {
                    "labels": {"type": ["string", "integer"], "default": "labels"},
                    "correct": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.9},
                    "temperature": {"type": "number", "exclusiveMinimum": 0, "default": 20.0},
                },
                "additionalProperties": False,
                "examples": [{"correct": 0.8}],
            },
        )
    ]
