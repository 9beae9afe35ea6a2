"""Whole networks in small: the structures that people compress, written out."""

import torch
from torch import nn
from torch.nn import functional


class ConvNorm(nn.Sequential):
    def __init__(self, before, after, size=3, *, stride=1, groups=1, act=nn.ReLU):
        super().__init__(
            nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False),
            nn.BatchNorm2d(after),
            act(),
        )


class Nested(nn.Module):
    """Convolutions and norms in one submodule, a classifier with a norm in another."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(3, 1, 1)
        self.trunk = nn.Sequential(
            ConvNorm(1, 8, 5), nn.MaxPool2d(2), ConvNorm(8, 12, 5), nn.MaxPool2d(2)
        )
        self.wide = nn.Linear(12 * 16, 20)
        self.head = nn.Sequential(nn.Linear(20, 10), nn.BatchNorm1d(10), nn.ReLU(inplace=True))
        self.last = nn.Linear(10, 2)

    def forward(self, x):
        x = self.trunk(self.enter(x))
        x = x.view(x.size(0), -1)
        return self.last(self.head(functional.relu(self.wide(x))))


class AlexNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 5, 2, 2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 1),
            nn.Conv2d(8, 12, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.AdaptiveAvgPool2d(3)
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(12 * 9, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3)
        )

    def forward(self, x):
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


class Fire(nn.Module):
    def __init__(self, before, squeeze, expand):
        super().__init__()
        self.squeeze = nn.Conv2d(before, squeeze, 1)
        self.one, self.three = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, 1, 1)

    def forward(self, x):
        x = self.squeeze(x).relu()
        return torch.cat([self.one(x).relu(), self.three(x).relu()], 1)


class SqueezeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2)
        self.fires = nn.Sequential(Fire(8, 4, 8), nn.MaxPool2d(2, ceil_mode=True), Fire(16, 4, 8))
        self.last = nn.Conv2d(16, 3, 1)

    def forward(self, x):
        return self.last(self.fires(self.stem(x).relu())).relu().mean((2, 3))


class SqueezeExcite(nn.Module):
    def __init__(self, width, act, gate):
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(width, 8, 1), nn.Conv2d(8, width, 1)
        self.pool, self.act, self.gate = nn.AdaptiveAvgPool2d(1), act(), gate()

    def forward(self, x):
        return x * self.gate(self.excite(self.act(self.squeeze(self.pool(x)))))


class Inverted(nn.Module):
    """An inverted residual block, as in MobileNetV2 and V3, MNASNet and EfficientNet."""

    def __init__(self, before, inner, after, *, size=3, stride=1, act=nn.ReLU6, gate=None):
        super().__init__()
        layers = [ConvNorm(before, inner, 1, act=act)] if inner != before else []
        layers.append(ConvNorm(inner, inner, size, stride=stride, groups=inner, act=act))
        if gate is not None:
            inside = nn.SiLU if act is nn.SiLU else nn.ReLU
            layers.append(SqueezeExcite(inner, inside, gate))
        self.block = nn.Sequential(*layers, ConvNorm(inner, after, 1, act=nn.Identity))
        self.has_shortcut = stride == 1 and before == after

    def forward(self, x):
        return x + self.block(x) if self.has_shortcut else self.block(x)


class Inverteds(nn.Module):
    def __init__(self, act, gate, *, head):
        super().__init__()
        self.stem = ConvNorm(3, 8, stride=2, act=act)
        self.blocks = nn.Sequential(
            Inverted(8, 8, 8, act=act, gate=gate),
            Inverted(8, 24, 12, stride=2, act=act),
            Inverted(12, 32, 12, size=5, act=act, gate=gate),
            Inverted(12, 40, 16, act=act, gate=gate),
        )
        self.last = ConvNorm(16, 48, 1, act=act)
        self.classifier = head

    def forward(self, x):
        x = functional.adaptive_avg_pool2d(self.last(self.blocks(self.stem(x))), 1)
        return self.classifier(x.flatten(1))


def mobilenet_v2():
    return Inverteds(nn.ReLU6, None, head=nn.Sequential(nn.Dropout(0.2), nn.Linear(48, 3)))


def mobilenet_v3():
    head = nn.Sequential(nn.Linear(48, 20), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(20, 3))
    return Inverteds(nn.Hardswish, nn.Hardsigmoid, head=head)


def efficientnet():
    return Inverteds(nn.SiLU, nn.Sigmoid, head=nn.Linear(48, 3))


class Bottleneck(nn.Module):
    def __init__(self, before, width, after, *, groups=1, stride=1):
        super().__init__()
        self.first = ConvNorm(before, width, 1)
        self.second = ConvNorm(width, width, groups=groups, stride=stride)
        self.third = ConvNorm(width, after, 1, act=nn.Identity)
        self.around = nn.Identity()
        if before != after:
            self.around = ConvNorm(before, after, 1, stride=stride, act=nn.Identity)

    def forward(self, x):
        return functional.relu(self.third(self.second(self.first(x))) + self.around(x))


class ResNet(nn.Module):
    """Bottlenecks, of grouped convolutions as in ResNeXt, or wide ones."""

    def __init__(self, *, groups=1, width=8):
        super().__init__()
        self.stem = ConvNorm(3, 8, 7, stride=2)
        self.layers = nn.Sequential(
            Bottleneck(8, width, 16, groups=groups),
            Bottleneck(16, width, 16, groups=groups),
            Bottleneck(16, 2 * width, 24, groups=groups, stride=2),
        )
        self.fc = nn.Linear(24, 3)

    def forward(self, x):
        return self.fc(self.layers(self.stem(x)).mean((2, 3)))


class Transposed(nn.Module):
    """A grouped transposed convolution between norms, and a flattened image."""

    def __init__(self):
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 8, 5), nn.BatchNorm2d(8)
        self.second = nn.ConvTranspose2d(8, 12, 5, groups=2)
        self.second_norm = nn.BatchNorm2d(12)
        self.wide, self.head = nn.Linear(12 * 256, 10), nn.Linear(10, 3)

    def forward(self, x):
        x = self.second(self.first_norm(self.first(x)).relu())
        return self.head(self.wide(self.second_norm(x).relu().flatten(1)).relu())


class Normless(nn.Module):
    """Instance norms without parameters between convolutions, and a bare classifier."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (
            nn.Conv2d(before, after, 3) for before, after in ((3, 8), (8, 12), (12, 16))
        )
        self.first_norm, self.second_norm = nn.InstanceNorm2d(8), nn.InstanceNorm2d(12)
        self.fc, self.classifier = nn.Linear(16, 20), nn.Linear(20, 3)

    def forward(self, x):
        x = self.first_norm(self.first(x).relu())
        x = self.third(self.second_norm(self.second(x).relu())).relu()
        x = functional.adaptive_avg_pool2d(x, 1).reshape(x.shape[0], -1)
        return self.classifier(self.fc(x))


class Levels(nn.Module):
    """A backbone that returns a list, and a pyramid of which each level is summed into the next."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(
            [ConvNorm(3, 8), Inverted(8, 16, 12, stride=2), Inverted(12, 24, 16, stride=2)]
        )
        self.sides = nn.ModuleList([nn.Conv2d(width, 8, 1) for width in (8, 12, 16)])
        self.smooth = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)])
        self.tower, self.boxes = ConvNorm(8, 12), nn.Conv2d(12, 4, 1)

    def backbone(self, x):
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found

    def forward(self, x):
        levels = [side(level) for side, level in zip(self.sides, self.backbone(x), strict=True)]
        for i in (1, 0):
            size = levels[i].shape[2:]
            levels[i] = levels[i] + functional.interpolate(levels[i + 1], size=size)
        return [
            self.boxes(self.tower(smooth(level).relu()))
            for smooth, level in zip(self.smooth, levels, strict=True)
        ]


class C2f(nn.Module):
    def __init__(self, before, after, count=2):
        super().__init__()
        self.enter = ConvNorm(before, 2 * after, 1, act=nn.SiLU)
        self.inner = nn.ModuleList(
            nn.Sequential(ConvNorm(after, after, act=nn.SiLU), ConvNorm(after, after, act=nn.SiLU))
            for _ in range(count)
        )
        self.leave = ConvNorm((2 + count) * after, after, 1, act=nn.SiLU)

    def forward(self, x):
        parts = list(self.enter(x).chunk(2, 1))
        for one in self.inner:
            parts.append(parts[-1] + one(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class Yolo(nn.Module):
    """C2f blocks, pooled pyramids, an upsampled skip, and heads that join boxes with classes."""

    def __init__(self):
        super().__init__()
        self.stem, self.early = ConvNorm(3, 8, stride=2, act=nn.SiLU), C2f(8, 8)
        self.down, self.late = ConvNorm(8, 16, stride=2, act=nn.SiLU), C2f(16, 16, 1)
        self.narrow = ConvNorm(16, 8, 1, act=nn.SiLU)
        self.pools = ConvNorm(32, 16, 1, act=nn.SiLU)
        self.merge = C2f(24, 8, 1)
        self.boxes = nn.ModuleList(
            nn.Sequential(ConvNorm(width, 8, act=nn.SiLU), nn.Conv2d(8, 8, 1)) for width in (8, 16)
        )
        self.classes = nn.ModuleList(
            nn.Sequential(ConvNorm(width, 8, act=nn.SiLU), nn.Conv2d(8, 3, 1)) for width in (8, 16)
        )

    def forward(self, x):
        early = self.early(self.stem(x))
        pooled = [self.narrow(self.late(self.down(early)))]
        for _ in range(3):
            pooled.append(functional.max_pool2d(pooled[-1], 5, 1, 2))
        deep = self.pools(torch.cat(pooled, 1))
        fine = self.merge(torch.cat([functional.interpolate(deep, scale_factor=2.0), early], 1))
        found = [
            torch.cat([box(level), kind(level)], 1).flatten(2)
            for box, kind, level in zip(self.boxes, self.classes, (fine, deep), strict=True)
        ]
        return torch.cat(found, 2)


class Mixed(nn.Module):
    """Many operators in a row: of one value, pointwise, moving, pooling and normalizing ones."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 5), nn.Conv2d(8, 12, 5)
        self.wide, self.narrow = nn.Linear(12 * 4, 20), nn.Linear(20, 16)
        self.last = nn.Linear(16, 6)

    def forward(self, x):
        x = (x - torch.ones_like(x)).contiguous()
        x = torch.exp(functional.interpolate(x, (16, 16), mode="bilinear")).sigmoid()
        x = x.transpose(1, 2).transpose(1, 2)
        x = self.first(functional.avg_pool2d(x, 3, 1, padding=1))
        parts = functional.relu(x), functional.gelu(x), functional.leaky_relu(x)
        x = self.second(sum(functional.max_pool2d(part, 2) for part in parts) * 1.5 / 1.25)
        x = functional.silu(x) - torch.tanh(x)
        x = x.permute(0, 2, 3, 1).unsqueeze(1).select(1, 0).unsqueeze(1).mean(1)
        x = x.unsqueeze(1).sum(1, dtype=x.dtype).unsqueeze(1).squeeze(1).flatten(1)
        x = self.narrow(self.wide(x.reshape(x.shape).view(-1, x.size(1))).relu()).relu()
        x = functional.log_softmax(self.last(x), 1)
        x = torch.cat([x[:, : x.size(1) // 2], x[:, x.size(1) // 2 :]], 1).type_as(x)
        x = x / x.sum(1, keepdim=True).expand_as(x)
        return functional.pad(x @ x.t(), (1, 1, 1, 1), value=3.0)
