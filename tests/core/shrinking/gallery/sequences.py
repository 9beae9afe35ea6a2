"""Networks over time, over volumes, over points and over graphs, in small."""

import torch
from torch import nn
from torch.nn import functional


class WaveNet(nn.Module):
    """Causal dilated convolutions with gates, residuals and skips."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Conv1d(2, 8, 1)
        self.filters = nn.ModuleList(nn.Conv1d(8, 6, 2, dilation=2**i) for i in range(3))
        self.gates = nn.ModuleList(nn.Conv1d(8, 6, 2, dilation=2**i) for i in range(3))
        self.residuals = nn.ModuleList(nn.Conv1d(6, 8, 1) for _ in range(2))
        self.skips = nn.ModuleList(nn.Conv1d(6, 10, 1) for _ in range(3))
        self.middle, self.last = nn.Conv1d(10, 10, 1), nn.Conv1d(10, 4, 1)

    def example(self):
        return (torch.randn(2, 2, 20, generator=torch.Generator().manual_seed(0)),)

    def forward(self, x):
        x = self.enter(x)
        skips = 0
        for i, (filtering, gate) in enumerate(zip(self.filters, self.gates, strict=True)):
            padded = functional.pad(x, (2**i, 0))
            found = filtering(padded).tanh() * gate(padded).sigmoid()
            skips = skips + self.skips[i](found)
            if i < len(self.residuals):
                x = x + self.residuals[i](found)
        return self.last(self.middle(skips.relu()).relu())


class Tcn(nn.Module):
    """Dilated convolutions whose padding is cut off afterwards."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(3, 8, 3, padding=2)
        self.second = nn.Conv1d(8, 8, 3, padding=4, dilation=2)
        self.shortcut = nn.Conv1d(3, 8, 1)
        self.last = nn.Linear(8, 2)

    def example(self):
        return (torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(0)),)

    def forward(self, x):
        y = self.first(x)[:, :, :-2].relu()
        y = self.second(y)[:, :, :-4].relu()
        return self.last((y + self.shortcut(x)).relu()[:, :, -1])


class Video(nn.Module):
    """Space and time apart: (2+1)D convolutions and a squeeze over both."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(3, 8, (1, 3, 3), padding=(0, 1, 1), bias=False)
        self.stem_norm = nn.BatchNorm3d(8)
        self.time = nn.Conv3d(8, 10, (3, 1, 1), padding=(1, 0, 0))
        self.depthwise = nn.Conv3d(10, 10, 3, padding=1, groups=10)
        self.head = nn.Linear(10, 3)

    def example(self):
        return (torch.randn(2, 3, 4, 6, 6, generator=torch.Generator().manual_seed(0)),)

    def forward(self, x):
        x = functional.relu_(self.stem_norm(self.stem(x)))
        x = functional.max_pool3d(self.time(x).relu(), (1, 2, 2))
        return self.head(functional.adaptive_avg_pool3d(self.depthwise(x), 1).flatten(1))


class Recogniser(nn.Module):
    """Convolutions, two directions of an LSTM or a GRU, and a linear layer (CRNN)."""

    kind = nn.LSTM

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.recurrent = self.kind(6 * 4, 10, num_layers=2, bidirectional=True, batch_first=True)
        self.last = nn.Linear(20, 5)

    def example(self):
        return (torch.randn(2, 1, 4, 7, generator=torch.Generator().manual_seed(0)),)

    def forward(self, x):
        x = self.stem(x).relu().permute(0, 3, 1, 2).flatten(2)
        return self.last(self.recurrent(x)[0]).log_softmax(-1)


class GatedRecogniser(Recogniser):
    kind = nn.GRU


class Translator(nn.Module):
    """An encoder, a decoder, and attention between them with a learned bilinear score."""

    def __init__(self):
        super().__init__()
        self.source, self.target = nn.Embedding(11, 8), nn.Embedding(13, 8)
        self.encoder = nn.GRU(8, 12, batch_first=True)
        self.decoder = nn.GRU(8, 12, batch_first=True)
        self.score = nn.Linear(12, 12, bias=False)
        self.mix = nn.Linear(24, 10)
        self.last = nn.Linear(10, 13)

    def example(self):
        return torch.arange(10).view(2, 5) % 11, torch.arange(8).view(2, 4)

    def forward(self, source, target):
        memory, state = self.encoder(self.source(source))
        queries, _ = self.decoder(self.target(target), state)
        scores = torch.bmm(self.score(queries), memory.transpose(1, 2)).softmax(-1)
        mixed = torch.cat([queries, torch.bmm(scores, memory)], -1)
        return self.last(self.mix(mixed).tanh())


class Scan(nn.Module):
    """A selective state space: gates and decays made of the input, a loop over time."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Linear(6, 16)
        self.conv = nn.Conv1d(8, 8, 3, padding=2, groups=8)
        self.select = nn.Linear(8, 2 + 4 + 4)
        self.step = nn.Linear(2, 8)
        self.decay = nn.Parameter(torch.rand(8, 4).log())
        self.skip = nn.Parameter(torch.ones(8))
        self.leave = nn.Linear(8, 6)

    def example(self):
        return (torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0)),)

    def forward(self, x):
        y, gate = self.enter(x).chunk(2, -1)
        y = functional.silu(self.conv(y.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        small, b, c = self.select(y).split([2, 4, 4], -1)
        step = functional.softplus(self.step(small))
        decay = torch.exp(step.unsqueeze(-1) * -self.decay.exp())
        driven = step.unsqueeze(-1) * b.unsqueeze(2) * y.unsqueeze(-1)
        state, found = torch.zeros_like(driven[:, 0]), []
        for t in range(x.shape[1]):
            state = decay[:, t] * state + driven[:, t]
            found.append((state * c[:, t].unsqueeze(1)).sum(-1))
        y = torch.stack(found, 1) + y * self.skip
        return self.leave(y * functional.silu(gate))


class PointNet(nn.Module):
    """The largest value of each channel over all points, beside each point."""

    def __init__(self):
        super().__init__()
        self.points = nn.Sequential(nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv1d(8, 12, 1), nn.BatchNorm1d(12), nn.ReLU())
        self.each = nn.Conv1d(20, 6, 1)
        self.last = nn.Conv1d(6, 2, 1)

    def example(self):
        return (torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(0)),)

    def forward(self, x):
        points = self.points(x.transpose(1, 2))
        whole = torch.max(self.wide(points), 2, keepdim=True)[0]
        both = torch.cat([points, whole.expand(-1, -1, points.shape[2])], 1)
        return self.last(self.each(both).relu()).transpose(1, 2)


class GraphNet(nn.Module):
    """Messages along edges, summed where they arrive."""

    def __init__(self):
        super().__init__()
        self.enter, self.message = nn.Linear(4, 8), nn.Linear(16, 8)
        self.update, self.last = nn.Linear(16, 8), nn.Linear(8, 2)
        self.register_buffer("edges", torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]]))

    def example(self):
        return (torch.randn(5, 4, generator=torch.Generator().manual_seed(0)),)

    def forward(self, x):
        x = self.enter(x).relu()
        source, target = self.edges
        sent = self.message(torch.cat([x[source], x[target]], -1)).relu()
        arrived = torch.zeros_like(x).index_add(0, target, sent)
        return self.last(self.update(torch.cat([x, arrived], -1)).relu())


class ScatterNet(GraphNet):
    """The same with a scatter, and means instead of sums."""

    def forward(self, x):
        x = self.enter(x).relu()
        source, target = self.edges
        sent = self.message(torch.cat([x[source], x[target]], -1)).relu()
        places = target.unsqueeze(-1).expand_as(sent)
        arrived = torch.zeros_like(x).scatter_add_(0, places, sent)
        count = torch.zeros(x.shape[0], dtype=x.dtype).index_add(
            0, target, target.to(x.dtype) * 0 + 1
        )
        arrived = arrived / count.clamp(min=1).unsqueeze(-1)
        return self.last(self.update(torch.cat([x, arrived], -1)).relu())


class AttentiveGraph(nn.Module):
    """Edges that are weighted by a softmax over neighbours (dense mask)."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Linear(4, 8)
        self.left, self.right = nn.Linear(8, 1), nn.Linear(8, 1)
        self.last = nn.Linear(8, 2)
        self.register_buffer("near", torch.eye(5).roll(1, 0) + torch.eye(5) > 0)

    def example(self):
        return (torch.randn(5, 4, generator=torch.Generator().manual_seed(0)),)

    def forward(self, x):
        x = self.enter(x)
        scores = functional.leaky_relu(self.left(x) + self.right(x).T, 0.2)
        scores = scores.masked_fill(~self.near, float("-inf")).softmax(-1)
        return self.last(functional.elu(scores @ x))


class Recommender(nn.Module):
    """Bags of ids, dense features, their products two by two, and a tower (DLRM)."""

    def __init__(self):
        super().__init__()
        self.items = nn.EmbeddingBag(20, 6, mode="sum")
        self.user = nn.Embedding(7, 6)
        self.dense = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 6))
        self.tower = nn.Sequential(nn.Linear(9, 12), nn.ReLU(), nn.Linear(12, 1))

    def example(self):
        return (
            torch.randn(3, 4),
            torch.arange(9) % 7,
            torch.tensor([0, 3, 5]),
            torch.tensor([1, 2, 3]),
        )

    def forward(self, dense, items, offsets, user):
        vectors = torch.stack([self.dense(dense), self.items(items, offsets), self.user(user)], 1)
        crossed = torch.bmm(vectors, vectors.transpose(1, 2))
        rows, columns = torch.tril_indices(3, 3, offset=-1)
        return self.tower(torch.cat([vectors[:, 0], crossed[:, rows, columns]], 1)).sigmoid()


class TwoTowers(nn.Module):
    """Two towers whose outputs are normalized and compared."""

    def __init__(self):
        super().__init__()
        self.left = nn.Sequential(nn.Linear(5, 10), nn.ReLU(), nn.Linear(10, 8))
        self.right = nn.Sequential(nn.Linear(7, 12), nn.GELU(), nn.Linear(12, 8))
        self.scale = nn.Parameter(torch.tensor(2.0))

    def example(self):
        return torch.randn(3, 5), torch.randn(3, 7)

    def forward(self, a, b):
        a = functional.normalize(self.left(a), dim=-1)
        b = functional.normalize(self.right(b), dim=-1)
        return self.scale.exp() * a @ b.T


NETWORKS = {
    WaveNet: ["last"],
    Tcn: ["last"],
    Video: ["head"],
    Recogniser: ["last"],
    GatedRecogniser: ["last"],
    Translator: ["last"],
    Scan: ["leave", "select"],
    PointNet: ["last"],
    GraphNet: ["last"],
    ScatterNet: ["last"],
    AttentiveGraph: ["last", "left", "right"],
    Recommender: ["tower.2"],
    TwoTowers: [],
}
"""Each network, and the layers that keep their outputs."""
