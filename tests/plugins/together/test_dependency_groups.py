"""Groups that are found, pruned by the L1 norm, and cut out: what is left computes the same."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import tersely


def norm_of(name):
    """An entry that masks a batch norm where the convolution before it is masked."""
    aligned = {"align": {"module_name": name[0], "target_name": "weight", "dims": [0]}}
    return {
        "op_names": [name[1]],
        "target_names": ["weight", "bias"],
        "target_settings": {"weight": aligned, "bias": aligned},
    }


class Residual(nn.Module):
    """Two blocks on one stream, one of them inverted, and a gate."""

    def __init__(self):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner, self.inner_norm = nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.outer, self.outer_norm = nn.Conv2d(12, 8, 1), nn.BatchNorm2d(8)
        self.expand = nn.Conv2d(8, 16, 1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.project = nn.Conv2d(16, 8, 1)
        self.down, self.up = nn.Linear(8, 4), nn.Linear(4, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem_norm(self.stem(x)).relu()
        x = x + self.outer_norm(self.outer(self.inner_norm(self.inner(x)).relu()))
        x = x + self.project(functional.relu6(self.depthwise(self.expand(x).relu())))
        gate = self.up(self.down(x.mean((2, 3))).relu())
        return self.head((x * gate[:, :, None, None]).mean((2, 3)))


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.c, self.head = nn.Conv2d(8, 12, 3, groups=2), nn.Linear(12, 3)

    def forward(self, x):
        x = self.a(x).relu()
        return self.head(self.c(x + self.b(x)).relu().mean((2, 3)))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = 4
        self.q, self.k, self.v, self.out = (nn.Linear(6, 16) for _ in range(4))
        self.out = nn.Linear(16, 6)

    def forward(self, x):
        q, k, v = (
            project(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2)
            for project in (self.q, self.k, self.v)
        )
        mixed = torch.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def image():
    return torch.randn(2, 3, 8, 8)


def randomized(model):
    """Give norms statistics of their own, so that a channel that is left in would show."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return model.eval()


def prune(model, given, inputs):
    """The masked model and the rows of every weight that are masked."""
    config_list = tersely.auto_dependency_groups(model, given, inputs)
    session = tersely.prune(model, config_list, algorithm="l1_norm")
    masked = {
        module: (~targets["weight"].flatten(1).any(1)).nonzero().flatten().tolist()
        for module, targets in session.masks().items()
        if "weight" in targets and targets["weight"].dim() > 1
    }
    return session.finalize(), masked


def cut_rows(layer, masked):
    keep = [row for row in range(len(layer.weight)) if row not in masked]
    layer.weight = nn.Parameter(layer.weight[keep])
    layer.bias = nn.Parameter(layer.bias[keep])


def cut_columns(layer, masked):
    keep = [column for column in range(layer.weight.shape[1]) if column not in masked]
    layer.weight = nn.Parameter(layer.weight[:, keep])


def test_members_of_a_group_lose_the_same_channels(image):
    given = [{"op_types": ["Conv2d", "Linear"], "exclude_op_names": ["head"], "sparse_ratio": 0.5}]

    _, masked = prune(randomized(Residual()), given, image)

    assert masked["stem"] == masked["outer"] == masked["project"] == masked["up"]
    assert masked["expand"] == masked["depthwise"]
    assert {name: len(rows) for name, rows in masked.items()} == {
        "stem": 4,
        "inner": 6,
        "outer": 4,
        "expand": 8,
        "depthwise": 8,
        "project": 4,
        "down": 2,
        "up": 4,
    }


def test_what_was_masked_is_what_shrink_cuts_out(image):
    given = [
        {"op_types": ["Conv2d", "Linear"], "exclude_op_names": ["head"], "sparse_ratio": 0.5},
        *map(
            norm_of,
            [("stem", "stem_norm"), ("inner", "inner_norm"), ("outer", "outer_norm")],
        ),
    ]
    small = randomized(Residual())
    config_list = tersely.auto_dependency_groups(small, given, image)
    session = tersely.prune(small, config_list, algorithm="l1_norm")
    masked = small(image)

    session.shrink(image)

    assert small.stem.out_channels == 4
    assert small.depthwise.groups == 8
    torch.testing.assert_close(small(image), masked)


def test_groups_of_a_convolution_can_be_cut_out(image):
    given = [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]
    dense = Grouped()
    small = copy.deepcopy(dense)

    finished, masked = prune(dense, given, image)

    assert masked["a"] == masked["b"]
    assert [sum(row < 4 for row in masked["a"]), sum(row < 6 for row in masked["c"])] == [2, 3]
    cut_rows(small.a, masked["a"])
    cut_rows(small.b, masked["b"])
    cut_columns(small.b, masked["a"])
    # Each group reads four channels, of which it keeps two; rows 0 to 5 belong to the first group.
    first = [row for row in range(4) if row not in masked["a"]]
    second = [row - 4 for row in range(4, 8) if row not in masked["a"]]
    weight = torch.cat([small.c.weight[:6, first], small.c.weight[6:, second]])
    small.c.weight = nn.Parameter(weight)
    cut_rows(small.c, masked["c"])
    cut_columns(small.head, masked["c"])
    torch.testing.assert_close(small(image), finished(image))


def test_heads_of_an_attention_can_be_cut_out():
    tokens = torch.randn(2, 5, 6)
    given = [{"op_names": ["q", "k", "v"], "sparse_ratio": 0.5}]
    dense = Attention()
    small = copy.deepcopy(dense)

    finished, masked = prune(dense, given, tokens)

    assert masked["q"] == masked["k"] == masked["v"]
    assert [sum(row // 4 == head for row in masked["q"]) for head in range(4)] == [2, 2, 2, 2]
    for name in ("q", "k", "v"):
        cut_rows(small.get_submodule(name), masked[name])
    cut_columns(small.out, masked["v"])
    torch.testing.assert_close(small(tokens), finished(tokens))
