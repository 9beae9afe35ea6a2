"""RigL and GraNet: what is dropped by magnitude makes room for what grows by its gradient.

Evci, Gale, Menick, Castro and Elsen, Rigging the Lottery: Making All Tickets Winners, ICML 2020,
section 3. Liu et al., Sparse Training via Boosting Pruning Plasticity with Neuroregeneration,
NeurIPS 2021, section 4. Both depart from the papers in how sparsity is spread over layers: that
is what the config says, neither Erdos-Renyi nor the order of magnitudes over all layers.
"""

import math
import zlib

import torch

import tersely
from tersely.contracts import ObservesDenseGradients, RegrowsFromZero


class GraNet(ObservesDenseGradients, RegrowsFromZero):
    """Magnitude pruning along a schedule, with a share of what is kept exchanged every time.

    What comes back starts at zero. The share decays along a cosine to zero at the schedule's end.
    """

    only_when_due = True

    def __init__(self, *, share: float = 0.5) -> None:
        self.share = share

    def observe_gradient(
        self, gradient: torch.Tensor, target: tersely.PruningTarget
    ) -> dict[str, torch.Tensor]:
        """Return the gradient of the step with which masks are due, masked elements included."""
        return {"gradient": gradient.detach().clone()}

    def importance(self, target: tersely.PruningTarget) -> torch.Tensor:
        """Return scores: what stays by its magnitude above what is ranked by its gradient."""
        magnitude = target.tensor.detach().abs().float()
        if target.mask is None or target.due is None:
            return self.first(target, magnitude)
        kept = magnitude.numel() - math.floor(target.due * magnitude.numel())
        grown = math.floor(self.share_at(float(target.progress or 0)) * kept)
        held = torch.where(target.mask, magnitude, -1).flatten()
        stays = torch.zeros_like(held)
        stays[held.argsort(descending=True, stable=True)[: kept - grown]] = 1
        gradient = target.observed["gradient"].abs().float()
        above = (1 + gradient.amax()) * stays.view_as(gradient)
        return gradient + above

    def share_at(self, progress: float) -> float:
        """Return the share of the kept weights that is exchanged (RigL, section 3, f_decay)."""
        return self.share / 2 * (1 + math.cos(math.pi * progress))

    def first(self, target: tersely.PruningTarget, magnitude: torch.Tensor) -> torch.Tensor:
        """Return the scores of the first masks."""
        return magnitude


class RigL(GraNet):
    """Masks that are random at first, and change while sparsity does not."""

    def __init__(self, *, share: float = 0.3) -> None:
        super().__init__(share=share)

    def first(self, target: tersely.PruningTarget, magnitude: torch.Tensor) -> torch.Tensor:
        """Return random scores, the same ones for a target of the same name."""
        generator = torch.Generator().manual_seed(zlib.crc32(target.name.encode()))
        return torch.rand(magnitude.shape, generator=generator).to(magnitude.device)
