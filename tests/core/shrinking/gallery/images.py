"""Transformers and mixers over images, in small."""

import torch
from torch import nn
from torch.nn import functional


class SelfAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def _split(self, x):
        return x.view(x.shape[0], -1, self.heads, self.head_dim).transpose(1, 2)

    def forward(self, x, memory=None):
        memory = x if memory is None else memory
        mixed = functional.scaled_dot_product_attention(
            self._split(self.query(x)),
            self._split(self.key(memory)),
            self._split(self.value(memory)),
        )
        return self.out(mixed.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))


class Block(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class VisionTransformer(nn.Module):
    """A class token, learned positions, and the distilled head beside it (DeiT)."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 2, 16))
        self.positions = nn.Parameter(torch.randn(1, 18, 16))
        self.blocks = nn.Sequential(Block(16, 4, 24), Block(16, 4, 24))
        self.norm = nn.LayerNorm(16)
        self.head, self.other = nn.Linear(16, 3), nn.Linear(16, 3)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        x = self.norm(self.blocks(x))
        return (self.head(x[:, 0]) + self.other(x[:, 1])) / 2


class WindowAttention(nn.Module):
    """Packed projections, a bias for each head and relative position, and a mask (Swin)."""

    def __init__(self, width, heads, window):
        super().__init__()
        self.heads, self.window = heads, window
        self.packed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads))
        grid = torch.stack(
            torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        )
        apart = grid.flatten(1)[:, :, None] - grid.flatten(1)[:, None, :] + window - 1
        self.register_buffer("index", apart[0] * (2 * window - 1) + apart[1])

    def forward(self, x):
        n, length, _ = x.shape
        q, k, v = self.packed(x).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        bias = self.table[self.index.view(-1)].view(length, length, -1).permute(2, 0, 1)
        scores = (scores + bias.unsqueeze(0)).softmax(-1)
        return self.out((scores @ v).transpose(1, 2).reshape(n, length, -1))


class Swin(nn.Module):
    """Windows that are rolled, and patches that are merged four by four."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, stride=2)
        self.norm, self.attention = nn.LayerNorm(8), WindowAttention(8, 2, 4)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)
        self.merge_norm, self.merge = nn.LayerNorm(32), nn.Linear(32, 16, bias=False)
        self.hidden = nn.Linear(16, 10)
        self.head = nn.Linear(10, 3)

    def forward(self, x):
        x = self.patches(x).permute(0, 2, 3, 1)
        y = torch.roll(self.norm(x), (-2, -2), (1, 2))
        n, h, w, c = y.shape
        y = y.view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        y = self.attention(y).view(n, h // 4, w // 4, 4, 4, -1).permute(0, 1, 3, 2, 4, 5)
        x = x + torch.roll(y.reshape(n, h, w, -1), (2, 2), (1, 2))
        x = x + self.down(functional.gelu(self.up(x)))
        parts = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        x = self.merge(self.merge_norm(torch.cat(parts, -1)))
        return self.head(self.hidden(x.mean((1, 2))).relu())


class ConvNeXt(nn.Module):
    """Depthwise, a norm over channels, a wide layer, and a learned scale."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.depthwise = nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.norm = nn.LayerNorm(8, eps=1e-6)
        self.up, self.down = nn.Linear(8, 20), nn.Linear(20, 8)
        self.scale = nn.Parameter(torch.rand(8))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(functional.gelu(self.up(y)))
        return self.head((x + y.permute(0, 3, 1, 2)).mean((-2, -1)))


class Detr(nn.Module):
    """Learned queries that attend to an image; boxes and classes of each."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 10, 3, 2, 1), nn.BatchNorm2d(10), nn.ReLU())
        self.project = nn.Conv2d(10, 8, 1)
        self.rows, self.columns = nn.Parameter(torch.rand(8, 4)), nn.Parameter(torch.rand(8, 4))
        self.encoder = Block(8, 2, 12)
        self.queries = nn.Embedding(5, 8)
        self.across = SelfAttention(8, 2)
        self.norm = nn.LayerNorm(8)
        self.classes = nn.Linear(8, 4)
        self.boxes = nn.Sequential(nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 4))

    def forward(self, x):
        x = self.project(self.backbone(x))
        height, width = x.shape[-2:]
        places = torch.cat(
            [
                self.columns[:width].unsqueeze(0).repeat(height, 1, 1),
                self.rows[:height].unsqueeze(1).repeat(1, width, 1),
            ],
            -1,
        )
        memory = self.encoder(x.flatten(2).permute(0, 2, 1) + places.flatten(0, 1).unsqueeze(0))
        queries = self.queries.weight.unsqueeze(0).expand(x.shape[0], -1, -1)
        found = self.norm(queries + self.across(queries, memory))
        return {"logits": self.classes(found), "boxes": self.boxes(found).sigmoid()}


class Mixer(nn.Module):
    """Linear layers over patches, then over channels."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.over, self.over_back = nn.Linear(16, 12), nn.Linear(12, 16)
        self.up, self.down = nn.Linear(8, 20), nn.Linear(20, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        y = self.norm1(x).transpose(1, 2)
        x = x + self.over_back(functional.gelu(self.over(y))).transpose(1, 2)
        x = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(1))


class GatedMixer(nn.Module):
    """Half of the channels gate the other half, mixed over patches (gMLP)."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.up, self.down = nn.Linear(8, 24), nn.Linear(12, 8)
        self.spatial = nn.Conv1d(16, 16, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        u, v = functional.gelu(self.up(x)).chunk(2, -1)
        x = x + self.down(u * self.spatial(v))
        return self.head(x.mean(1))


HEADS = {r"query|packed": 4}

NETWORKS = {
    VisionTransformer: {"ends": ["patches", "head"], "heads": HEADS},
    Swin: {"ends": ["patches", "merge", "head"], "heads": HEADS},
    ConvNeXt: ["stem", "head"],
    Detr: {"ends": ["project", "queries", "classes", "boxes.2"], "heads": HEADS},
    Mixer: ["patches", "over_back", "head"],
    GatedMixer: ["head", "spatial"],
}
"""Each network, and the layers that keep their outputs."""
