"""Sun et al., Patient Knowledge Distillation for BERT Model Compression (PKD), EMNLP 2019,
equation 7: squared distances between normalized states of the first token.
"""

import torch

import tersely


def patient(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    if student.shape != teacher.shape:
        raise ValueError(
            f"patient compares equal shapes, not {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}; set projection: linear"
        )
    if student.dim() > 2:  # (batch, tokens, features)
        student, teacher = student[:, 0], teacher[:, 0]
    own = torch.nn.functional.normalize(student.float().flatten(1), dim=1)
    other = torch.nn.functional.normalize(teacher.float().flatten(1), dim=1)
    return (own - other).square().sum(1).mean()


@tersely.hookimpl
def tersely_distillation_losses():
    return [
        tersely.LossInfo(
            name="patient",
            implementation="patient:patient",
            summary="Distances between normalized states of the first token.",
            paper="Sun et al., PKD, EMNLP 2019",
        )
    ]
