"""Random networks of the blocks that models are made of, and random masks of whole rows."""

import copy

import torch
from torch import nn
from torch.nn import functional

ACTIVATIONS = (
    functional.relu,
    functional.hardswish,
    functional.gelu,
    torch.sigmoid,
    torch.tanh,
    torch.exp,
    lambda x: functional.leaky_relu(x, 0.1),
    lambda x: x,
)


class Draw:
    """Random choices from one seed."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def integer(self, below):
        return int(torch.randint(below, (), generator=self.generator))

    def of(self, *choices):
        return choices[self.integer(len(choices))]

    def chance(self, probability):
        return float(torch.rand((), generator=self.generator)) < probability


class Convolution(nn.Module):
    """A convolution, perhaps a norm, and an activation."""

    def __init__(self, draw, width, after=None, *, groups=1):
        super().__init__()
        after = after or width
        size = draw.of(1, 3)
        self.conv = nn.Conv2d(
            width, after, size, padding=size // 2, groups=groups, bias=draw.chance(0.5)
        )
        norms = (nn.Identity(), nn.BatchNorm2d(after), nn.GroupNorm(2, after))
        self.norm = draw.of(*norms, nn.BatchNorm2d(after), nn.InstanceNorm2d(after, affine=True))
        self.activation = draw.of(*ACTIVATIONS)

    def forward(self, x):
        return self.activation(self.norm(self.conv(x)))


class Depthwise(Convolution):
    def __init__(self, draw, width):
        super().__init__(draw, width, groups=width)


class Grouped(Convolution):
    def __init__(self, draw, width):
        super().__init__(draw, width, groups=2)


class Residual(nn.Module):
    def __init__(self, draw, width):
        super().__init__()
        inner = draw.of(8, 12, 16)
        self.first, self.second = Convolution(draw, width, inner), Convolution(draw, inner, width)

    def forward(self, x):
        return x + self.second(self.first(x))


class Dense(nn.Module):
    def __init__(self, draw, width):
        super().__init__()
        self.grow, self.back = Convolution(draw, width, 8), Convolution(draw, width + 8, width)

    def forward(self, x):
        return self.back(torch.cat([x, self.grow(x)], 1))


class Excite(nn.Module):
    def __init__(self, draw, width):
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(width, 8, 1), nn.Conv2d(8, width, 1)
        self.gate = draw.of(torch.sigmoid, functional.hardsigmoid)

    def forward(self, x):
        return x * self.gate(self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()))


class Halves(nn.Module):
    """A block that splits, computes with one half, and joins or shuffles."""

    def __init__(self, draw, width):
        super().__init__()
        self.inner, self.is_shuffled = Convolution(draw, width // 2), draw.chance(0.5)

    def forward(self, x):
        left, right = x.chunk(2, 1)
        x = torch.cat([left, self.inner(right)], 1)
        if self.is_shuffled:
            n, c, h, w = x.shape
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return x


class Gate(nn.Module):
    def __init__(self, draw, width):
        super().__init__()
        self.both, self.back = Convolution(draw, width, 16), Convolution(draw, 8, width)
        self.is_glu = draw.chance(0.5)

    def forward(self, x):
        if self.is_glu:
            return self.back(functional.glu(self.both(x), 1))
        value, gate = self.both(x).chunk(2, 1)
        return self.back(value * torch.tanh(gate))


class Pixels(nn.Module):
    def __init__(self, draw, width):
        super().__init__()
        self.wide, self.back = Convolution(draw, width, 16), Convolution(draw, 4, width)

    def forward(self, x):
        x = self.back(functional.pixel_shuffle(self.wide(x), 2))
        return functional.avg_pool2d(x, 2)


class Unet(nn.Module):
    def __init__(self, draw, width):
        super().__init__()
        self.down, self.merge = Convolution(draw, width, 8), Convolution(draw, width + 8, width)
        self.up = nn.ConvTranspose2d(8, 8, 2, 2, bias=draw.chance(0.5))

    def forward(self, x):
        return self.merge(torch.cat([x, self.up(self.down(functional.max_pool2d(x, 2)))], 1))


class Attention(nn.Module):
    """Heads of packed or separate projections, by an operator, products or letters."""

    def __init__(self, draw, width):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, 12) for _ in range(3))
        self.out, self.norm = nn.Linear(12, width), draw.of(nn.Identity(), nn.LayerNorm(width))
        self.heads, self.way = draw.of(1, 3, 4), draw.of("operator", "products", "letters")

    def forward(self, x):
        n, _, h, w = x.shape
        rows = self.norm(x.flatten(2).transpose(1, 2))
        q, k, v = (
            one(rows).view(n, h * w, self.heads, -1) for one in (self.query, self.key, self.value)
        )
        if self.way == "letters":
            scores = torch.einsum("nihd,njhd->nhij", q, k) * 0.3
            mixed = torch.einsum("nhij,njhd->nihd", scores.softmax(-1), v)
        else:
            q, k, v = (one.transpose(1, 2) for one in (q, k, v))
            if self.way == "operator":
                mixed = functional.scaled_dot_product_attention(q, k, v)
            else:
                mixed = ((q @ k.transpose(2, 3)) * 0.3).softmax(-1) @ v
            mixed = mixed.transpose(1, 2)
        rows = self.out(mixed.reshape(n, h * w, -1))
        return x + rows.transpose(1, 2).reshape(x.shape)


class Recurrent(nn.Module):
    def __init__(self, draw, width):
        super().__init__()
        kind = draw.of(nn.LSTM, nn.GRU)
        self.layer = kind(width, 8, batch_first=True, bidirectional=draw.chance(0.5))
        self.out = nn.Linear(16 if self.layer.bidirectional else 8, width)

    def forward(self, x):
        rows, _ = self.layer(x.flatten(2).transpose(1, 2))
        return x + self.out(rows).transpose(1, 2).reshape(x.shape)


class Shared(nn.Module):
    def __init__(self, draw, width):
        super().__init__()
        self.layer = Convolution(draw, width)

    def forward(self, x):
        return self.layer(self.layer(x)) + x


class Step(nn.Module):
    """An operator without weights; some of them mix channels."""

    STEPS = (
        lambda x: functional.max_pool2d(x, 3, 1, 1),
        lambda x: functional.interpolate(x, scale_factor=2.0)[..., ::2, ::2],
        lambda x: functional.pad(x, (1, 1, 1, 1))[..., 1:-1, 1:-1],
        lambda x: functional.normalize(x, dim=1),
        lambda x: x - x.mean(1, keepdim=True),
        lambda x: x.sort(2).values,
        lambda x: x.roll(1, 1),
        lambda x: x.roll(1, 2),
        lambda x: x.flip(1),
        lambda x: x.softmax(1),
        lambda x: x.masked_fill(x < 0.2, 0.5),
        lambda x: functional.local_response_norm(x, 3),
        lambda x: x / x.shape[1] ** 0.5,
        lambda x: x.cumsum(3),
        lambda x: x * x.sum(1, keepdim=True).sigmoid(),
        lambda x: functional.fold(functional.unfold(x, 2), x.shape[2:], 2),
        lambda x: functional.layer_norm(x.movedim(1, -1), (x.shape[1],)).movedim(-1, 1),
        lambda x: torch.where(x > 0, x, x.flip(2)),
        lambda x: torch.fft.ifft2(torch.fft.fft2(x)).real,
    )

    def __init__(self, draw, width):
        super().__init__()
        self.step = draw.of(*self.STEPS)

    def forward(self, x):
        return self.step(x)


BLOCKS = (
    Convolution,
    Convolution,
    Depthwise,
    Grouped,
    Residual,
    Residual,
    Dense,
    Excite,
    Halves,
    Gate,
    Pixels,
    Unet,
    Attention,
    Attention,
    Recurrent,
    Shared,
    Step,
    Step,
)


class Network(nn.Module):
    """A stem, three to five blocks of one width, and a head."""

    def __init__(self, seed):
        super().__init__()
        draw = Draw(seed)
        width = draw.of(8, 12, 16)
        self.stem = Convolution(draw, 3, width)
        self.blocks = nn.Sequential(
            *(draw.of(*BLOCKS)(draw, width) for _ in range(3 + draw.integer(3)))
        )
        self.is_pooled = draw.chance(0.5)
        self.head = nn.Linear(width if self.is_pooled else width * 16, 3)

    def forward(self, x):
        x = self.blocks(self.stem(x))
        return self.head(x.mean((2, 3)) if self.is_pooled else x.flatten(1))


def random_masks(model, seed):
    """Masks of whole rows: in most seeds the same rows in all layers of one width."""
    draw = Draw(seed + 1_000_000)
    patterns, is_alike = {}, draw.chance(0.7)
    kept = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None or name == "head" or draw.chance(0.25):
            continue
        dim = 1 if isinstance(module, nn.ConvTranspose2d) else 0
        width = weight.shape[dim]
        runs = draw.of(1, 1, 2, 4) if width % 4 == 0 else draw.of(1, width // 3)
        if not is_alike or width not in patterns:
            rows = torch.rand(width // runs, generator=draw.generator) > 0.45
            rows = rows.repeat_interleave(runs) if draw.chance(0.5) else rows.repeat(runs)
            patterns[width] = rows
        rows = patterns[width]
        shape = [-1 if d == dim else 1 for d in range(weight.ndim)]
        kept[f"{name}.weight"] = rows.view(shape).expand(weight.shape)
        if getattr(module, "bias", None) is not None and draw.chance(0.7):
            kept[f"{name}.bias"] = rows
    return kept


def masked_copy(model, kept):
    """A copy in double precision whose weights are multiplied with their masks."""
    copied = copy.deepcopy(model)
    for name, mask in kept.items():
        copied.get_parameter(name).data.mul_(mask)
    return copied.double()
