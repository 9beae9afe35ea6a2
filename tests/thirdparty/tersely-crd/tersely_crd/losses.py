"""Contrastive distillation and the flow of solution procedure."""

import torch
from torch import Tensor
from torch.nn import functional

from tersely.contracts import StatefulLoss

Two = tuple[Tensor, Tensor]


class Contrastive(StatefulLoss):
    """Noise-contrastive estimation against memory banks (Tian et al., ICLR 2020, equation 18)."""

    def __init__(
        self,
        *,
        samples: int,
        features: int = 128,
        negatives: int = 16,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        self.samples, self.features = samples, features
        self.negatives, self.temperature = negatives, temperature

    def build(self, student: tuple[int, ...], teacher: tuple[int, ...] | None) -> None:
        """Make a head for each side, and a bank of what each head made of every sample."""
        for name, shape in (("student", student), ("teacher", teacher or ())):
            width = torch.Size(shape[1:]).numel()
            self.add_module(f"{name}_head", torch.nn.Linear(width, self.features))
            bank = functional.normalize(torch.randn(self.samples, self.features), dim=1)
            self.register_buffer(f"{name}_bank", bank)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, student: Tensor, teacher: Tensor, *, indices: Tensor) -> Tensor:
        """Return the mean over the batch of both directions."""
        generator = torch.Generator().manual_seed(int(self.calls))
        shape = (len(indices), self.negatives)
        others = torch.randint(self.samples, shape, generator=generator).to(indices.device)
        rows = torch.cat([indices[:, None], others], dim=1)
        ours = functional.normalize(self.student_head(student.flatten(1).float()), dim=1)
        theirs = functional.normalize(self.teacher_head(teacher.flatten(1).float()), dim=1)
        loss = self.told_apart(ours, self.teacher_bank[rows])
        loss = loss + self.told_apart(theirs, self.student_bank[rows])
        self.student_bank[indices] = ours.detach()
        self.teacher_bank[indices] = theirs.detach()
        self.calls += 1
        return loss

    def told_apart(self, anchors: Tensor, rows: Tensor) -> Tensor:
        """Return how badly each anchor's first row is told from the others, which are noise."""
        logits = torch.einsum("bf,bkf->bk", anchors, rows) / self.temperature
        odds = logits - torch.tensor(self.negatives / self.samples).log()
        positive, negative = odds[:, 0], odds[:, 1:]
        return functional.softplus(-positive).mean() + functional.softplus(negative).sum(1).mean()


def flow(student: Two, teacher: Two) -> Tensor:
    """Return the mean squared difference of both flows (Yim et al., CVPR 2017, equation 2)."""
    return (_flow(*student) - _flow(*teacher)).square().mean()


def _flow(first: Tensor, second: Tensor) -> Tensor:
    if first.ndim != 4 or first.shape[2:] != second.shape[2:]:
        raise ValueError(
            f"fsp needs two feature maps of one size, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )
    ours, theirs = first.flatten(2).float(), second.flatten(2).float()
    return ours @ theirs.transpose(1, 2) / ours.shape[2]
