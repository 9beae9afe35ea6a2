"""Small networks around one unusual layer or operator each."""

import torch
from torch import nn
from torch.nn import functional


class Around(nn.Module):
    """A convolution, something between, a second convolution and a classifier."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.head = nn.Linear(12, 3)

    def between(self, x):
        return x

    def forward(self, x):
        x = self.between(self.first(x))
        return self.head(self.second(x).relu().mean((2, 3)))


class StandardizedConv(nn.Conv2d):
    def forward(self, x):
        mean, spread = self.weight.mean((1, 2, 3), True), self.weight.std((1, 2, 3), keepdim=True)
        return functional.conv2d(x, (self.weight - mean) / (spread + 1e-5), self.bias, 1, 1)


class GroupNormed(Around):
    def __init__(self):
        super().__init__()
        self.norm = nn.GroupNorm(4, 8)

    def between(self, x):
        return self.norm(x).relu()


class InstanceNormed(Around):
    def __init__(self):
        super().__init__()
        self.norm = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)

    def between(self, x):
        return self.norm(x).relu()


class ParametricRelu(Around):
    def __init__(self):
        super().__init__()
        self.slope = nn.PReLU(8)

    def between(self, x):
        return self.slope(x)


class LearnedScale(Around):
    """A scale and a shift for each channel as parameters of one's own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(8, 1, 1))
        self.shared = nn.Parameter(torch.rand(1))

    def between(self, x):
        return (x * self.scale * self.shared).relu()


class StochasticDepth(Around):
    """A branch that training leaves out at random."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(8, 8, 1)

    def between(self, x):
        y = self.inner(x)
        if self.training:
            y = y * torch.empty(x.shape[0], 1, 1, 1).bernoulli_(0.8) / 0.8
        return x + y


class TrainingOnly(Around):
    """Noise in training, a clamp in evaluation."""

    def between(self, x):
        if self.training:
            return x + 0.1 * torch.randn_like(x)
        return x.clamp(-2, 2)


class Counting(Around):
    """A buffer that every forward updates."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("largest", torch.zeros(8))

    def between(self, x):
        self.calls += 1
        self.largest.copy_(torch.maximum(self.largest, x.detach().amax((0, 2, 3))))
        return x.relu()


class ComplexView(Around):
    """Pairs of positions as complex numbers that are turned by an angle."""

    def between(self, x):
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        turned = pairs * torch.polar(torch.ones(()), torch.tensor(0.3)).to(pairs.dtype)
        return torch.view_as_real(turned).flatten(-2)


class Flipped(Around):
    """Four directions of an image, added (test-time augmentation in forward)."""

    def between(self, x):
        return x + x.flip(-1) + x.rot90(1, (2, 3)) + x.transpose(2, 3)


class Einops(Around):
    """Space to depth and back by views and permutations."""

    def between(self, x):
        n, c, h, w = x.shape
        y = x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4)
        y = y.reshape(n, 4 * c, h // 2, w // 2).relu()
        return y.reshape(n, 2, 2, c, h // 2, w // 2).permute(0, 3, 4, 1, 5, 2).reshape(n, c, h, w)


class Chosen(Around):
    """One of two activations by a mask of the input."""

    def between(self, x):
        mask = (x.sum(1, keepdim=True) > 0).expand_as(x)
        return torch.where(mask, x, 0.1 * x).masked_fill(x.abs() > 3, 0.0)


class InPlace(Around):
    """Writes into what was just made, also into a part of it."""

    def between(self, x):
        y = x.mul(2.0)
        y += x
        y[:, :, 0] = 0.0
        y[..., 1].mul_(0.5)
        return y.relu_()


class Unbound(Around):
    """Rows taken apart and put together again in another order."""

    def between(self, x):
        rows = x.unbind(2)
        return torch.stack([*rows[1:], rows[0]], 2)


class LocalResponse(Around):
    """A norm over neighbouring channels, which stay."""

    def between(self, x):
        return functional.local_response_norm(x, 3)


class Normed(Around):
    """Both convolutions made of a direction and a length (weight norm)."""

    def __init__(self):
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(self.first)


class Shared(Around):
    """One convolution that is called three times, with norms of their own."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(3))

    def between(self, x):
        for norm in self.norms:
            x = x + norm(self.inner(x)).relu()
        return x


class Siamese(nn.Module):
    """Two images through one network, and their distance."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU())
        self.out = nn.Linear(12, 6)

    def example(self):
        generator = torch.Generator().manual_seed(0)
        return tuple(torch.randn(2, 3, 8, 8, generator=generator) for _ in range(2))

    def forward(self, a, b):
        a, b = (self.out(self.trunk(x).mean((2, 3))) for x in (a, b))
        return functional.pairwise_distance(a, b), functional.cosine_similarity(a, b)


class Masks(nn.Module):
    """Classes of a few regions, and a mask for each from a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.classes = nn.Sequential(
            nn.Flatten(1), nn.Linear(8 * 16, 12), nn.ReLU(), nn.Linear(12, 3)
        )
        self.mask = nn.Sequential(
            nn.Conv2d(8, 10, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(10, 8, 2, 2), nn.ReLU()
        )
        self.last = nn.Conv2d(8, 3, 1)

    def forward(self, x):
        x = self.stem(x).relu()
        regions = torch.cat([x[:, :, :8, :8], x[:, :, 4:12, 4:12], x[:, :, 8:, 8:]], 0)
        pooled = functional.adaptive_avg_pool2d(regions, 4)
        return self.classes(pooled), self.last(self.mask(pooled)).sigmoid()


class Standardized(Around):
    def __init__(self):
        super().__init__()
        self.first = StandardizedConv(3, 8, 3)


class Prototypes(nn.Module):
    """Distances to learned examples (a prototypical network)."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 8))

    def example(self):
        generator = torch.Generator().manual_seed(0)
        return tuple(torch.randn(n, 4, generator=generator) for n in (3, 5))

    def forward(self, queries, support):
        return -torch.cdist(self.trunk(queries), self.trunk(support)).log_softmax(-1)


NETWORKS = {
    GroupNormed: {"ends": ["head"], "heads": {"first": 2}},
    InstanceNormed: ["head"],
    ParametricRelu: ["head"],
    LearnedScale: ["head"],
    StochasticDepth: ["head"],
    TrainingOnly: ["head"],
    Counting: ["head"],
    ComplexView: ["head"],
    Flipped: ["head"],
    Einops: ["head"],
    Chosen: ["head"],
    InPlace: ["head"],
    Unbound: ["head"],
    Shared: ["head"],
    Siamese: ["out"],
    Masks: ["classes.3", "last"],
    Normed: ["head"],
    LocalResponse: ["head"],
    Standardized: ["head"],
    Prototypes: [],
}
"""Each network, and the layers that keep their outputs."""
