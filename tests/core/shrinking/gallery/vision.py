"""Convolutional networks that classify, detect and segment, in small."""

import torch
from torch import nn
from torch.nn import functional


def conv(before, after, size=3, *, stride=1, groups=1, dilation=1):
    """A convolution that keeps the size, a norm and an activation."""
    padding = dilation * (size // 2)
    return nn.Sequential(
        nn.Conv2d(before, after, size, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


class DenseLayer(nn.Module):
    def __init__(self, before, growth):
        super().__init__()
        self.norm = nn.BatchNorm2d(before)
        self.squeeze = nn.Conv2d(before, 2 * growth, 1, bias=False)
        self.inner_norm = nn.BatchNorm2d(2 * growth)
        self.grow = nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features):
        x = self.squeeze(self.norm(torch.cat(features, 1)).relu())
        return self.grow(self.inner_norm(x).relu())


class DenseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layers = nn.ModuleList(DenseLayer(8 + 4 * i, 4) for i in range(3))
        self.norm = nn.BatchNorm2d(20)
        self.classifier = nn.Linear(20, 3)

    def forward(self, x):
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(features))
        x = self.norm(torch.cat(features, 1)).relu()
        return self.classifier(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class ShuffleUnit(nn.Module):
    def __init__(self, width):
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(
            conv(half, half, 1),
            nn.Conv2d(half, half, 3, padding=1, groups=half),
            conv(half, half, 1),
        )

    def forward(self, x):
        first, second = x.chunk(2, dim=1)
        x = torch.cat([first, self.branch(second)], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv(3, 16)
        self.units = nn.Sequential(ShuffleUnit(16), ShuffleUnit(16))
        self.classifier = nn.Linear(16, 3)

    def forward(self, x):
        return self.classifier(self.units(self.stem(x)).mean((2, 3)))


class Inception(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv(3, 12)
        self.one = conv(12, 8, 1)
        self.three = nn.Sequential(conv(12, 6, 1), conv(6, 8))
        self.factored = nn.Sequential(
            conv(12, 6, 1),
            nn.Conv2d(6, 8, (1, 5), padding=(0, 2)),
            nn.Conv2d(8, 8, (5, 1), padding=(2, 0)),
        )
        self.pooled = conv(12, 6, 1)
        self.classifier = nn.Linear(30, 3)

    def forward(self, x):
        x = self.stem(x)
        pooled = self.pooled(functional.avg_pool2d(x, 3, 1, 1))
        x = torch.cat([self.one(x), self.three(x), self.factored(x), pooled], 1)
        return self.classifier(functional.max_pool2d(x, 4).amax((2, 3)))


class Attention(nn.Module):
    """Channel attention of average and maximum, and spatial attention (CBAM)."""

    def __init__(self, width):
        super().__init__()
        self.down, self.up = nn.Conv2d(width, 6, 1), nn.Conv2d(6, width, 1)
        self.spatial = nn.Conv2d(1, 1, 7, padding=3)

    def forward(self, x):
        pooled = functional.adaptive_avg_pool2d(x, 1), functional.adaptive_max_pool2d(x, 1)
        x = x * sum(self.up(self.down(one).relu()) for one in pooled).sigmoid()
        return x * self.spatial(x.sum(1, keepdim=True)).sigmoid()


class Cbam(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv(3, 8)
        self.attention = Attention(8)
        self.classifier = nn.Linear(8, 3)

    def forward(self, x):
        return self.classifier(self.attention(self.stem(x)).mean((2, 3)))


class GhostModule(nn.Module):
    """Half of the channels made from the other half by a cheap convolution."""

    def __init__(self, before, after):
        super().__init__()
        self.primary = conv(before, after // 2, 1)
        self.cheap = nn.Sequential(
            nn.Conv2d(after // 2, after // 2, 3, padding=1, groups=after // 2), nn.ReLU()
        )

    def forward(self, x):
        x = self.primary(x)
        return torch.cat([x, self.cheap(x)], 1)


class GhostNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = GhostModule(3, 16), GhostModule(16, 8)
        self.classifier = nn.Linear(8, 3)

    def forward(self, x):
        return self.classifier(self.second(self.first(x)).flatten(2).mean(2))


class RepBlock(nn.Module):
    """Three branches that are added: 3x3, 1x1 and a norm alone (RepVGG in training)."""

    def __init__(self, width):
        super().__init__()
        self.wide = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.wide_norm = nn.BatchNorm2d(width)
        self.narrow = nn.Conv2d(width, width, 1, bias=False)
        self.narrow_norm, self.norm = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x):
        x = self.wide_norm(self.wide(x)) + self.narrow_norm(self.narrow(x)) + self.norm(x)
        return x.relu()


class RepVgg(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv(3, 8)
        self.blocks = nn.Sequential(RepBlock(8), RepBlock(8))
        self.classifier = nn.Linear(8, 3)

    def forward(self, x):
        return self.classifier(self.blocks(self.stem(x)).mean((2, 3)))


class HrNet(nn.Module):
    """Two resolutions that exchange what they know by sums."""

    def __init__(self):
        super().__init__()
        self.high, self.low = conv(3, 8), conv(8, 12, stride=2)
        self.high_again, self.low_again = conv(8, 8), conv(12, 12)
        self.down, self.up = conv(8, 12, stride=2), nn.Conv2d(12, 8, 1)
        self.head = nn.Conv2d(20, 2, 1)

    def forward(self, x):
        high = self.high(x)
        low = self.low_again(self.low(high))
        high = self.high_again(high)
        up = functional.interpolate(self.up(low), size=high.shape[2:], mode="bilinear")
        high, low = high + up, low + self.down(high)
        low = functional.interpolate(low, scale_factor=2, mode="nearest")
        return self.head(torch.cat([high, low], 1))


class BiFpn(nn.Module):
    """Levels that are added with learned positive weights."""

    def __init__(self):
        super().__init__()
        self.levels = nn.ModuleList([conv(3, 8), conv(8, 8, stride=2), conv(8, 8, stride=2)])
        self.weights = nn.Parameter(torch.rand(2, 2))
        self.down = nn.ModuleList([conv(8, 8, groups=8), conv(8, 8, groups=8)])
        self.box = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        levels = []
        for level in self.levels:
            x = level(x)
            levels.append(x)
        weights = self.weights.relu()
        weights = weights / (weights.sum(1, keepdim=True) + 1e-4)
        out = [levels[-1]]
        for i in (1, 0):
            up = functional.interpolate(out[0], size=levels[i].shape[2:])
            out.insert(0, self.down[i](weights[i, 0] * levels[i] + weights[i, 1] * up))
        return [self.box(one) for one in out]


class Aspp(nn.Module):
    """Dilated branches and a pooled one, side by side (DeepLab)."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 8, stride=2)
        self.branches = nn.ModuleList(
            [conv(8, 6, 1), conv(8, 6, dilation=2), conv(8, 6, dilation=3)]
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 6, 1), nn.ReLU())
        self.project = conv(24, 8, 1)
        self.low = conv(8, 4, 1)
        self.head = nn.Conv2d(12, 2, 3, padding=1)

    def forward(self, x):
        stem = self.stem(x)
        pooled = functional.interpolate(
            self.pool(stem), size=stem.shape[-2:], mode="bilinear", align_corners=False
        )
        found = self.project(torch.cat([*(branch(stem) for branch in self.branches), pooled], 1))
        merged = torch.cat([found, self.low(stem)], 1)
        return functional.interpolate(self.head(merged), size=x.shape[-2:], mode="bilinear")


class RetinaNet(nn.Module):
    """One head for all levels; scores of all anchors in a row."""

    def __init__(self):
        super().__init__()
        self.stem, self.next = conv(3, 8), conv(8, 12, stride=2)
        self.lateral = nn.ModuleList([nn.Conv2d(8, 10, 1), nn.Conv2d(12, 10, 1)])
        self.tower = nn.Sequential(conv(10, 10), conv(10, 10))
        self.score, self.box = nn.Conv2d(10, 6, 3, padding=1), nn.Conv2d(10, 8, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(2))

    def _rows(self, x, size):
        n, _, h, w = x.shape
        return x.view(n, -1, size, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, size)

    def forward(self, x):
        high = self.stem(x)
        low = self.lateral[1](self.next(high))
        up = functional.interpolate(low, size=high.shape[2:])
        levels = [self.lateral[0](high) + up, low]
        towers = [self.tower(one) for one in levels]
        scores = torch.cat([self._rows(self.score(one), 3) for one in towers], 1)
        boxes = [
            self._rows(self.box(one) * scale, 4)
            for one, scale in zip(towers, self.scales, strict=True)
        ]
        return {"scores": scores.softmax(-1), "boxes": torch.cat(boxes, 1)}


class Unet(nn.Module):
    """Skips beside what is scaled up, cut to the smaller size."""

    def __init__(self):
        super().__init__()
        self.enter, self.down = conv(3, 8), conv(8, 12)
        self.up = nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.leave = conv(16, 8)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        skip = self.enter(x[..., 1:, 1:])
        x = self.up(self.down(functional.max_pool2d(skip, 2)))
        rows, columns = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
        x = functional.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        return self.last(self.leave(torch.cat([skip, x], 1)))


NETWORKS = {
    DenseNet: ["classifier"],
    ShuffleNet: ["classifier"],
    Inception: ["classifier"],
    Cbam: ["classifier", "attention.spatial"],
    GhostNet: ["classifier"],
    RepVgg: ["classifier"],
    HrNet: ["head"],
    BiFpn: ["box"],
    Aspp: ["head"],
    RetinaNet: ["score", "box"],
    Unet: ["last"],
}
"""Each network, and the layers that keep their outputs."""
