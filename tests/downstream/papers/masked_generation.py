"""Yang et al., Masked Generative Distillation (MGD), ECCV 2022, equations 2 to 4: some positions of
the student's features are set to zero, and all of the teacher's have to be made from the rest.
"""

import torch

import tersely
from tersely.contracts import StatefulLoss


class MaskedGeneration(StatefulLoss):
    """For features of shape (batch, channels, height, width).

    Args:
        share: of the positions that is masked, lambda in the paper.
    """

    def __init__(self, *, share: float = 0.65) -> None:
        super().__init__()
        self.share = share

    def build(self, student, teacher):
        if len(student) != 4 or student[2:] != teacher[2:]:
            raise ValueError(
                f"masked_generation compares maps of one size, not {tuple(student)} and "
                f"{tuple(teacher)}; choose convolutions before the same pooling"
            )
        channels = teacher[1]
        self.align = torch.nn.Conv2d(student[1], channels, 1)
        self.generation = torch.nn.Sequential(
            torch.nn.Conv2d(channels, channels, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, student, teacher):
        # Seeded by a count that is saved, so that a resumed session masks the same positions.
        generator = torch.Generator().manual_seed(int(self.calls))
        self.calls += 1
        shape = (len(student), 1, *student.shape[2:])
        kept = (torch.rand(shape, generator=generator) >= self.share).to(student.device)
        made = self.generation(self.align(student.float()) * kept)
        return torch.nn.functional.mse_loss(made, teacher.float())


@tersely.hookimpl
def tersely_distillation_losses():
    return [
        tersely.LossInfo(
            name="masked_generation",
            implementation="masked_generation:MaskedGeneration",
            summary="The teacher's features, made from some positions of the student's.",
            paper="Yang et al., MGD, ECCV 2022",
            options={
                "type": "object",
                "properties": {
                    "share": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.65}
                },
                "additionalProperties": False,
                "examples": [{"share": 0.5}],
            },
        )
    ]
