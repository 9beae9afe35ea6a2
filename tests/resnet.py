"""ResNet-18 and ResNet-50, written out: there is no torchvision where the tests run."""

from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Two 3x3 convolutions and a way around them."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])
        self.around = nn.Identity()
        if stride > 1:
            self.around = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, value):
        inner = functional.relu(self.norms[0](self.first(value)))
        return functional.relu(self.norms[1](self.second(inner)) + self.around(value))


def resnet18():
    """The 20 convolutions and the linear layer of ResNet-18, 11.7 M weights (He et al., 2016)."""
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    blocks, inputs = [], 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        blocks += [Block(inputs, outputs, stride), Block(outputs, outputs, 1)]
        inputs = outputs
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)]
    return nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1), *blocks, *head)


class Bottleneck(nn.Module):
    """Three convolutions and a way around them, with writes in place as torchvision's has them."""

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
    """Four stages of bottlenecks, 25.6 M parameters (He et al., 2016)."""
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
