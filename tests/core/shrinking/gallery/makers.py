"""Networks that make images, in small."""

import math

import torch
from torch import nn
from torch.nn import functional


class SuperResolution(nn.Module):
    """Residual blocks with a scale, pixel shuffle, and the input added at the end."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 3, padding=1)
        self.first, self.second = nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 8, 3, padding=1)
        self.up = nn.Conv2d(8, 24, 3, padding=1)
        self.activation = nn.PReLU(6)
        self.last = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x):
        y = self.enter(x)
        y = y + 0.1 * self.second(self.first(y).relu())
        y = self.activation(functional.pixel_shuffle(self.up(y), 2))
        return self.last(y) + functional.interpolate(x, scale_factor=2, mode="bicubic")


class Generator(nn.Module):
    """Noise to an image (DCGAN)."""

    def __init__(self):
        super().__init__()
        self.enter = nn.ConvTranspose2d(6, 12, 4, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(12), nn.BatchNorm2d(8)
        self.middle = nn.ConvTranspose2d(12, 8, 4, 2, 1, bias=False)
        self.last = nn.ConvTranspose2d(8, 3, 4, 2, 1)

    def example(self):
        return (torch.randn(2, 6, 1, 1, generator=torch.Generator().manual_seed(0)),)

    def forward(self, x):
        x = self.norm1(self.enter(x)).relu()
        return self.last(self.norm2(self.middle(x)).relu()).tanh()


class Discriminator(nn.Module):
    """Strided convolutions with instance norms; a spread over the batch as one more channel."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 4, 2, 1)
        self.second = nn.Conv2d(8, 12, 4, 2, 1)
        self.norm = nn.InstanceNorm2d(12, affine=True)
        self.last = nn.Conv2d(13, 1, 4)

    def forward(self, x):
        x = functional.leaky_relu(self.first(x), 0.2)
        x = functional.leaky_relu(self.norm(self.second(x)), 0.2)
        spread = (x - x.mean(0, keepdim=True)).abs().mean(0).sum()
        spread = spread.expand(x.shape[0], 1, *x.shape[2:])
        return self.last(torch.cat([x, spread], 1)).flatten(1)


class AutoEncoder(nn.Module):
    """A bottleneck of two numbers with a mean and a spread (the mean alone in evaluation)."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1))
        self.mean, self.spread = nn.Linear(12 * 16, 6), nn.Linear(12 * 16, 6)
        self.enter = nn.Sequential(nn.Linear(6, 12 * 16), nn.Unflatten(1, (12, 4, 4)))
        self.up = nn.Sequential(
            nn.ConvTranspose2d(12, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1)
        )

    def forward(self, x):
        x = self.down(x).relu().flatten(1)
        mean, spread = self.mean(x), self.spread(x)
        if self.training:
            mean = mean + torch.randn_like(mean) * (spread / 2).exp()
        return self.up(self.enter(mean).relu()), mean, spread


class Denoiser(nn.Module):
    """A residual block that is shifted by a time (diffusion), with group norms and attention."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 3, padding=1)
        self.norm1, self.norm2 = nn.GroupNorm(4, 8), nn.GroupNorm(4, 16)
        self.first, self.second = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)
        self.time = nn.Sequential(nn.Linear(6, 10), nn.SiLU(), nn.Linear(10, 32))
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def example(self):
        return torch.randn(2, 3, 8, 8), torch.tensor([3.0, 5.0])

    def forward(self, x, time):
        angles = time[:, None] * torch.exp(torch.arange(3) * -math.log(10) / 3)
        scale, shift = self.time(torch.cat([angles.sin(), angles.cos()], -1)).chunk(2, -1)
        x = self.enter(x)
        y = self.first(functional.silu(self.norm1(x)))
        y = self.norm2(y) * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
        return self.last(x + self.second(functional.silu(y)))


NETWORKS = {
    SuperResolution: ["last"],
    Generator: ["last"],
    Discriminator: ["last"],
    AutoEncoder: ["up.2", "mean", "spread"],
    Denoiser: {"ends": ["last"], "heads": {"enter": 2, "first": 4}},
}
"""Each network, and the layers that keep their outputs."""
