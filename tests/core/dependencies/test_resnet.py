"""A network of the size that people prune; tests/benchmarks/test_start.py measures the time."""

import torch
from torch import nn

import tersely


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, *, stride=1, is_first=False):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3, self.relu = nn.BatchNorm2d(4 * width), nn.ReLU(inplace=True)
        self.downsample = nn.Identity()
        if is_first:
            projection = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(4 * width))

    def forward(self, x):
        inner = self.relu(self.bn1(self.conv1(x)))
        inner = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(inner)))))
        inner += self.downsample(x)
        return self.relu(inner)


def resnet50():
    stages, inputs = [], 64
    for width, depth in ((64, 3), (128, 4), (256, 6), (512, 3)):
        stride = 1 if width == 64 else 2
        blocks = [Bottleneck(inputs, width, stride=stride, is_first=True)]
        inputs = 4 * width
        blocks += [Bottleneck(inputs, width) for _ in range(depth - 1)]
        stages.append(nn.Sequential(*blocks))
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    stem.append(nn.MaxPool2d(3, 2, 1))
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)]
    return nn.Sequential(nn.Sequential(*stem), *stages, nn.Sequential(*tail))


def test_every_stage_of_resnet_50_is_one_group():
    given = [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]

    found = tersely.auto_dependency_groups(resnet50(), given, torch.randn(1, 3, 64, 64))

    # One group for each stage: the projection and the last convolution of every block.
    assert [len(entry["op_names"]) for entry in found[:-1]] == [4, 5, 7, 4]
