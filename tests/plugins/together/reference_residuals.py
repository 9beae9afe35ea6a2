"""Structures of sums that another framework's tests of removing channels use, in small."""

import torch
from torch import nn
from torch.nn import functional


class Grouped(nn.Module):
    """A grouped convolution and a plain one that are summed after their norms, and flattened."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 32, 3, groups=4), nn.BatchNorm2d(32)
        self.conv3, self.bn3 = nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32)
        self.fc1, self.fc2 = nn.Linear(32 * 36, 20), nn.Linear(20, 10)

    def example(self):
        return torch.rand(3, 1, 10, 10, generator=torch.Generator().manual_seed(0))

    def forward(self, x):
        x = self.bn1(self.conv1(x))
        x = self.bn2(self.conv2(x)) + self.bn3(self.conv3(x))
        return functional.log_softmax(self.fc2(self.fc1(x.reshape(x.shape[0], -1))), -1)


class Wrapped(nn.Module):
    """The same below another module, as a trainer holds it."""

    def __init__(self):
        super().__init__()
        self.model = Grouped()

    def example(self):
        return self.model.example()

    def forward(self, x):
        return self.model(x)


def normed(before, after, size=3, *, stride=1):
    return nn.Sequential(
        nn.Conv2d(before, after, size, stride, size // 2, bias=False), nn.BatchNorm2d(after)
    )


class BasicBlock(nn.Module):
    def __init__(self, before, after, *, stride=1):
        super().__init__()
        self.first, self.second = normed(before, after, stride=stride), normed(after, after)
        self.around = nn.Identity()
        if before != after:
            self.around = normed(before, after, 1, stride=stride)

    def forward(self, x):
        y = self.second(functional.relu(self.first(x), inplace=True))
        return functional.relu(y + self.around(x), inplace=True)


class ResNet18(nn.Module):
    """Basic blocks of two stages: around the second a strided 1x1 convolution leads."""

    def __init__(self):
        super().__init__()
        self.stem, self.pool = normed(3, 8, 7, stride=2), nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(BasicBlock(8, 8), BasicBlock(8, 12, stride=2))
        self.after, self.fc = BasicBlock(12, 12), nn.Linear(12, 3)

    def forward(self, x):
        x = self.pool(functional.relu(self.stem(x), inplace=True))
        x = self.after(self.blocks(x))
        return self.fc(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


class Dilated(nn.Module):
    """Dilated bottlenecks around a sum, and scores that an objectness shifts (YOLOF)."""

    def __init__(self):
        super().__init__()
        self.stem, self.lateral = normed(3, 12, stride=2), normed(12, 8, 1)
        self.narrow = nn.ModuleList(normed(8, 4, 1) for _ in range(2))
        self.spread = nn.ModuleList(nn.Conv2d(4, 4, 3, 1, d, d) for d in (2, 4))
        self.widen = nn.ModuleList(normed(4, 8, 1) for _ in range(2))
        self.score, self.object = nn.Conv2d(8, 6, 3, 1, 1), nn.Conv2d(8, 2, 3, 1, 1)

    def forward(self, x):
        x = self.lateral(self.stem(x).relu())
        for narrow, spread, widen in zip(self.narrow, self.spread, self.widen, strict=True):
            x = x + widen(spread(narrow(x).relu()).relu()).relu()
        n, _, h, w = x.shape
        scores = self.score(x).view(n, -1, 3, h, w)
        present = self.object(x).view(n, -1, 1, h, w)
        shift = torch.log(1 + scores.clamp(max=8).exp() + present.clamp(max=8).exp())
        return (scores + present - shift).view(n, -1, h, w)
