"""Shrinking beside torch-pruning, the peer, in one run: what is left of ResNet-50, and its speed."""

import copy

import pytest
import torch
from torch import nn

from tersely.shrinking.counting.counts import count, total
from tersely.shrinking.shrink import shrink_module

pytestmark = pytest.mark.benchmark


class Bottleneck(nn.Module):
    """Three convolutions and a way around them."""

    def __init__(self, inputs, width, *, stride=1, is_first=False):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3, self.around = nn.BatchNorm2d(4 * width), nn.Identity()
        if is_first:
            projection = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
            self.around = nn.Sequential(projection, nn.BatchNorm2d(4 * width))

    def forward(self, x):
        inner = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return (self.bn3(self.conv3(inner)) + self.around(x)).relu()


def resnet50():
    """25.6 M parameters (He et al., 2016)."""
    torch.manual_seed(0)
    stages, inputs = [], 64
    for width, depth in ((64, 3), (128, 4), (256, 6), (512, 3)):
        stride = 1 if width == 64 else 2
        blocks = [Bottleneck(inputs, width, stride=stride, is_first=True)]
        inputs = 4 * width
        blocks += [Bottleneck(inputs, width) for _ in range(depth - 1)]
        stages.append(nn.Sequential(*blocks))
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)]
    return nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1), *stages, *tail).eval()


def shrunk(model, image):
    """Remove the upper half of the channels of every convolution."""
    kept = {}
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            rows = torch.arange(len(module.weight)) < len(module.weight) // 2
            shape = [-1, *(1,) * (module.weight.ndim - 1)]
            kept[f"{name}.weight"] = rows.view(shape).expand(module.weight.shape)
            if module.bias is not None:
                kept[f"{name}.bias"] = rows
    shrink_module(model, (image,), {}, kept)
    return model


def of_the_peer(model, image):
    """Remove half of the channels with torch-pruning."""
    peer = pytest.importorskip("torch_pruning")
    pruner = peer.pruner.MetaPruner(
        model,
        image,
        importance=peer.importance.MagnitudeImportance(p=1),
        pruning_ratio=0.5,
        ignored_layers=[module for module in model.modules() if isinstance(module, nn.Linear)],
    )
    pruner.step()
    return model


def test_half_of_resnet_50_is_what_the_peer_leaves(record_property):
    image = torch.randn(1, 3, 64, 64)
    dense = resnet50()
    theirs = of_the_peer(copy.deepcopy(dense), image)
    ours = shrunk(dense, image)
    own, other = (total(count(model, (image,), {})) for model in (ours, theirs))
    record_property("parameters", own.parameters / other.parameters)
    record_property("macs", own.macs / other.macs)
    print(own, other)  # noqa: T201  # the result
    assert own.parameters == pytest.approx(other.parameters, rel=0.02)
    assert own.macs == pytest.approx(other.macs, rel=0.02)


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize(("batch", "bar"), [(16, 0.30), (1, 0.45)])
def test_half_of_resnet_50_runs_in_a_fraction_of_the_time(least_ratio, batch, bar):
    dense = resnet50()
    small = shrunk(copy.deepcopy(dense), torch.randn(1, 3, 64, 64))
    images = torch.randn(batch, 3, 224, 224)
    with torch.inference_mode():
        found = least_ratio(lambda: small(images), lambda: dense(images), repeats=3)
    assert found < bar
