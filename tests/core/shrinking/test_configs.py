"""Sizes that forward computes from a config that modules share: the model gets one of its own."""

import copy
import dataclasses
import enum
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from tersely.shrinking.cutting.recorded import cut_again, record_of
from tersely.shrinking.shrink import shrink_module

X = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
QUERIES, GROUPS = [1, 1, 0, 0], [1, 0]
"""Heads of queries and of keys that stay."""


class Attention(nn.Module):
    """Queries, keys and values of unequal widths out of one layer, as in Phi-3."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.packed, self.out = nn.Linear(16, 24), nn.Linear(12, 16)
        self.groups = config.groups

    def forward(self, x):
        wide, size = self.packed(x), self.config.size
        width = self.config.heads * size
        end = width + self.groups * size
        parts = wide[..., :width], wide[..., width:end], wide[..., end:]
        query, key, value = (one.unflatten(-1, (-1, size)).transpose(1, 2) for one in parts)
        query = torch.cat([query[..., :size] * 0.5, query[..., size:]], -1)  # nothing is passed on
        found = functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
        return self.out(found.transpose(1, 2).flatten(2))


class Two(nn.Module):
    def __init__(self, config):
        super().__init__()
        torch.manual_seed(0)
        self.config = config
        self.first, self.second = Attention(config), Attention(config)

    def forward(self, x):
        x = x + self.first(x)
        return x + self.second(x)


@pytest.fixture
def config():
    return SimpleNamespace(heads=4, groups=2, size=3)


def masks(model, first=(QUERIES, GROUPS), second=(QUERIES, GROUPS)):
    """Masks of whole heads of each layer."""
    kept = {}
    for name, (queries, groups) in (("first", first), ("second", second)):
        rows = torch.tensor([*queries, *groups, *groups]).bool().repeat_interleave(3)
        kept[f"{name}.packed.weight"] = rows[:, None].expand(24, 16)
        kept[f"{name}.packed.bias"] = rows
    return kept


def test_heads_go_whose_count_is_in_a_config(help, config):
    model = Two(config).eval()

    found = help.shrink(model, (X,), masks(model))

    assert found.stays == ()
    assert model.second.packed.weight.shape == (12, 16)
    assert model.second.out.weight.shape == (16, 6)
    assert model.second.config.heads == 2
    assert model.config is model.first.config is model.second.config


def test_the_config_of_another_model_stays_as_it_is(config):
    model, teacher = Two(config).eval(), Two(config).eval()
    before = teacher(X)

    found = shrink_module(model, (X,), {}, masks(model))

    assert found.cuts
    assert vars(config) == {"heads": 4, "groups": 2, "size": 3}
    torch.testing.assert_close(teacher(X), before, rtol=0, atol=0)


def test_undoing_gives_the_config_back(config):
    model = Two(config).eval()
    before = model(X)

    shrink_module(model, (X,), {}, masks(model)).undoing.undo()

    assert model.config is model.first.config is config
    torch.testing.assert_close(model(X), before, rtol=0, atol=0)


def test_a_record_has_the_numbers_of_a_config(config):
    model = Two(config).eval()
    found = shrink_module(model, (X,), {}, masks(model))
    record = json.loads(json.dumps(record_of(found.cuts, found.undoing, model)))
    again, other = Two(config).eval(), copy.copy(config)

    cut_again(again, [record])

    assert again.first.config.heads == 2
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(X), model(X), rtol=0, atol=0)
    assert vars(config) == vars(other)


def test_layers_that_would_lose_unequally_many_keep_all_and_say_why(help, config):
    model = Two(config).eval()

    found = help.shrink(model, (X,), masks(model, second=([1, 1, 1, 1], [1, 1])))

    assert found.cuts == {}
    assert any("raises on the small model" in stay.reason for stay in found.stays)
    assert any("mask equally many in each" in (stay.hint or "") for stay in found.stays)


@dataclasses.dataclass(frozen=True)
class Frozen:
    heads: int = 4
    groups: int = 2
    size: int = 3


def test_heads_go_whose_count_is_in_a_frozen_dataclass(help):
    config = Frozen()
    model = Two(config).eval()

    found = help.shrink(model, (X,), masks(model))

    assert found.stays == ()
    assert model.second.config == Frozen(heads=2, groups=1)
    assert config == Frozen()


class Heads(enum.Enum):
    """A config of which there is one object in the process."""

    FOUR = 4

    @property
    def heads(self):
        return self._value_

    groups, size = property(lambda self: 2), property(lambda self: 3)


class Unique(SimpleNamespace):
    def __copy__(self):
        return self


class Uncopyable(SimpleNamespace):
    def __copy__(self):
        raise TypeError("it holds a connection")


@pytest.mark.parametrize(
    "config",
    [
        Heads.FOUR,
        Unique(heads=4, groups=2, size=3),
        Uncopyable(heads=4, groups=2, size=3),
    ],
    ids=["enum", "unique", "uncopyable"],
)
def test_an_object_that_cannot_be_copied_keeps_its_numbers(config):
    model, before = Two(config).eval(), dict(vars(config))

    found = shrink_module(model, (X,), {}, masks(model))

    assert found.cuts == {}
    assert found.stays
    assert vars(config) == before


def test_a_record_of_a_config_leaves_out_what_is_no_number(config):
    config.table = torch.arange(3)
    model = Two(config).eval()

    found = shrink_module(model, (X,), {}, masks(model))

    names = [name for _, name, _ in record_of(found.cuts, found.undoing, model)["attributes"]]
    assert "config.heads" in names
    assert "config.table" not in names
