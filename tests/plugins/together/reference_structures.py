"""Structures that another framework's tests of removing channels use, written out in small."""

import functools
import warnings

import torch
from torch import nn
from torch.nn import functional


class Chain(nn.Module):
    """Nearly every operator without weights between two convolutions and three linear layers.

    Two modules are not called, one of them scripted.
    """

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(256, 40), nn.Linear(40, 20), nn.Linear(20, 10)
        self.uncalled = nn.Linear(8, 8)
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            self.scripted = torch.jit.script(nn.ReLU())

    def example(self):
        return torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))

    def forward(self, x):
        x = x.sub(torch.ones_like(x)).add(torch.zeros_like(x)).add(torch.rand_like(x))
        x = functional.interpolate(x.contiguous(), (28, 28), mode="bilinear")
        x = functional.adaptive_avg_pool2d(functional.interpolate(x, (28, 28)), (28, 28))
        x = torch.transpose(torch.transpose(torch.sigmoid(torch.exp(x)), 1, 2), 1, 2)
        x = functional.max_pool2d(functional.avg_pool2d(x, 3, 1, padding=1), 3, 1, padding=1)
        x = self.conv1(x)
        x = sum(
            functional.max_pool2d(f(x), 2)
            for f in (torch.relu, functional.gelu, functional.leaky_relu)
        )
        x = self.conv2((x + 0.00001) * 1.00001)
        x = functional.max_pool2d(functional.silu(x), 2) - functional.max_pool2d(torch.tanh(x), 2)
        x = (x - 0.00001) / 1.00001
        for _ in range(3):
            x = torch.permute(x, (0, 2, 3, 1))
        x = torch.select(torch.unsqueeze(x, dim=1), dim=1, index=0)
        x = torch.mean(torch.unsqueeze(x, dim=1), dim=1)
        x = torch.squeeze(torch.unsqueeze(x.unsqueeze(1).mean(1, dtype=x.dtype), dim=1), dim=1)
        x = torch.flatten(x, 1)
        x = x.reshape(x.shape).view(-1, x.size(1))
        x = functional.log_softmax(self.fc1(x), 1)
        x = functional.softmax(self.fc3(functional.log_softmax(self.fc2(x), 1)), dim=1)
        x = torch.cat((x[:, : int(x.size(1) / 2)], x[:, int(x.size(1) / 2) :]), dim=1)
        x = x.type_as(x).expand_as(x)
        return functional.pad(torch.matmul(x, x.t()), (1, 1, 1, 1), value=3.14159)


def decorated(forward):
    @functools.wraps(forward)
    def run(*args, **kwargs):
        return forward(*args, **kwargs)

    return run


class Once(nn.ReLU6):
    @decorated
    def forward(self, x):
        return super().forward(x)


class Twice(nn.ReLU6):
    @decorated
    @decorated
    def forward(self, x):
        return super(Twice, self).forward(x)  # noqa: UP008  # the form that is tried


class Thrice(nn.ReLU6):
    @decorated
    @decorated
    @decorated
    def forward(self, x):
        return super(self.__class__, self).forward(x)  # the form that is tried


class LeNet(nn.Module):
    """Two convolutions and two linear layers around any activation."""

    def __init__(self, activation, wide=None):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 60), nn.Linear(60, 10)
        self.activation, self.wide = activation, wide or nn.ReLU6()

    def example(self):
        return torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))

    def forward(self, x):
        x = functional.max_pool2d(self.activation(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu6(self.conv2(x)), 2)
        x = x.view(-1, x.size()[1:].numel())
        return functional.log_softmax(self.fc2(self.wide(self.fc1(x))), dim=1)


class Beside(nn.Module):
    """Two pairs of convolutions, each put together along the batch, and added."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 16, 3, 1, 1) for _ in range(4))
        self.last = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        a, b, c, d = (conv(x) for conv in self.convs)
        return self.last(torch.cat((a, b), 0) + torch.cat((c, d), 0))


class Summed(nn.Module):
    """Channels that are summed over: two convolutions lose channels of their own."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(3, 16, 3, 1, 1)

    def forward(self, x):
        return torch.sum(self.conv1(x), dim=1) + torch.sum(self.conv2(x), dim=1)


def conv(before, after, size=3, *, stride=1, groups=1, norm=nn.BatchNorm2d):
    return nn.Sequential(
        nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False),
        norm(after),
        nn.ReLU(inplace=True),
    )


class Vgg(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2)),
            *(nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2)),
        )
        self.classifier = nn.Sequential(
            nn.Linear(12 * 49, 20), nn.ReLU(True), nn.Dropout(), nn.Linear(20, 3)
        )

    def forward(self, x):
        x = functional.adaptive_avg_pool2d(self.features(x), (7, 7))
        return self.classifier(torch.flatten(x, 1))


class MnasNet(nn.Module):
    """An inverted residual block after a separable one."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv(3, 8, stride=2), conv(8, 8, groups=8), nn.Conv2d(8, 6, 1))
        self.block = nn.Sequential(conv(6, 18, 1), conv(18, 18, 5, groups=18), nn.Conv2d(18, 6, 1))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.block(x)).mean([2, 3]))


class Hourglass(nn.Module):
    """Down and up again inside a residual, and maxima that run along rows and columns (CornerNet)."""

    def __init__(self):
        super().__init__()
        self.enter, self.skip = conv(3, 8), conv(8, 8)
        self.down, self.low = conv(8, 12, stride=2), conv(12, 8)
        self.rows, self.columns, self.out = conv(8, 6), conv(8, 6), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        x = self.enter(x)
        x = self.skip(x) + functional.interpolate(self.low(self.down(x)), scale_factor=2)
        rows = self.rows(x).flip(2).cummax(2)[0].flip(2)
        columns = self.columns(x).flip(3).cummax(3)[0].flip(3)
        return self.out(rows + columns)


class Fcos(nn.Module):
    """Heads with group norms and a scale for each level; boxes as means of distributions (GFL)."""

    def __init__(self):
        super().__init__()
        self.stem, self.next = conv(3, 8), conv(8, 12, stride=2)
        self.laterals = nn.ModuleList([nn.Conv2d(8, 8, 1), nn.Conv2d(12, 8, 1)])
        self.tower = conv(8, 8, norm=lambda width: nn.GroupNorm(4, width))
        self.classes, self.boxes = nn.Conv2d(8, 3, 3, padding=1), nn.Conv2d(8, 20, 3, padding=1)
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(())) for _ in range(2))
        self.register_buffer("steps", torch.arange(5.0))

    def forward(self, x):
        high = self.stem(x)
        low = self.laterals[1](self.next(high))
        high = self.laterals[0](high) + functional.interpolate(low, size=high.shape[-2:])
        found = []
        for level, scale in zip((high, low), self.scales, strict=True):
            y = self.tower(level)
            bins = self.boxes(y).permute(0, 2, 3, 1).reshape(-1, 5).softmax(1)
            sides = functional.linear(bins, self.steps.view(1, -1)).reshape(-1, 4)
            found += [self.classes(y), (sides * scale).exp()]
        return found


class NasCell(nn.Module):
    """Two levels that are merged by a sum and by a gate of one's mean (NAS-FPN, DyHead)."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.merge = conv(3, 8), conv(3, 8, stride=2), conv(8, 8)
        self.gate, self.last = nn.Conv2d(8, 1, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        left, right = self.left(x), self.right(x)
        up = functional.interpolate(right, size=left.shape[2:], mode="nearest")
        gated = up + left * functional.adaptive_avg_pool2d(up, 1).sigmoid()
        y = self.merge(gated.relu())
        weight = functional.hardsigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        return self.last(y * weight + functional.max_pool2d(left, 3, 1, 1))


class Pyramid(nn.Module):
    """Attention whose keys and values come of a smaller image (PVT)."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, 2)
        self.query, self.both = nn.Linear(8, 8), nn.Linear(8, 16)
        self.smaller, self.norm = nn.Conv2d(8, 8, 2, 2), nn.LayerNorm(8)
        self.out, self.up, self.down = nn.Linear(8, 8), nn.Linear(8, 20), nn.Linear(20, 8)
        self.heads, self.last = 2, nn.Linear(8, 3)

    def forward(self, x):
        x = self.patches(x)
        n, c, h, w = x.shape
        flat = x.flatten(2).transpose(1, 2)
        q = self.query(flat).reshape(n, h * w, self.heads, -1).permute(0, 2, 1, 3)
        small = self.norm(self.smaller(x).reshape(n, c, -1).permute(0, 2, 1))
        k, v = self.both(small).reshape(n, -1, 2, self.heads, 4).permute(2, 0, 3, 1, 4)
        mixed = ((q @ k.transpose(-2, -1)) * 0.5).softmax(-1) @ v
        flat = flat + self.out(mixed.transpose(1, 2).reshape(n, h * w, -1))
        return self.last((flat + self.down(functional.gelu(self.up(flat)))).mean(1))


class Yolox(nn.Module):
    """Every other pixel as a channel, a CSP block, pools of several sizes, decoupled heads."""

    def __init__(self):
        super().__init__()
        self.focus = conv(12, 8)
        self.main, self.short, self.block = conv(8, 6, 1), conv(8, 6, 1), conv(6, 6)
        self.merge, self.pooled = conv(12, 8, 1), conv(24, 10, 1)
        self.classes, self.box = nn.Conv2d(10, 3, 1), nn.Conv2d(10, 4, 1)

    def forward(self, x):
        x = self.focus(torch.cat([x[..., i::2, j::2] for j in (0, 1) for i in (0, 1)], 1))
        main = self.main(x)
        x = self.merge(torch.cat((main + self.block(main), self.short(x)), 1))
        x = torch.cat([x, *(functional.max_pool2d(x, k, 1, k // 2) for k in (3, 5))], 1)
        x = self.pooled(x)
        return torch.cat([self.box(x), self.classes(x).sigmoid()], 1).flatten(2).permute(0, 2, 1)


class Deformed(nn.Module):
    """A convolution that samples where another says (in place of a deformable one)."""

    def __init__(self):
        super().__init__()
        self.stem, self.offset = conv(3, 8), nn.Conv2d(8, 2, 3, padding=1)
        self.after, self.last = conv(8, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        steps = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype)
        grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).unsqueeze(0)
        grid = grid + 0.1 * self.offset(x).permute(0, 2, 3, 1).tanh()
        return self.last(self.after(functional.grid_sample(x, grid, align_corners=True)))
