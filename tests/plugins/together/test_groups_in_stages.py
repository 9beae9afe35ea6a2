"""Dependency groups from the file: found in the model's graph, or one for each repeated block."""

import json

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import tersely
from tersely.cli.main import cli

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.inner = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1)
        self.outer, self.head = nn.Conv2d(6, 8, 1), nn.Linear(8, 2)

    def forward(self, x):
        x = self.stem(x).relu()
        x = x + self.outer(self.inner(x).relu())
        return self.head(x.mean((2, 3)))


def recipe(**keys):
    entry = {"op_types": ["Conv2d"], "sparse_ratio": 0.5}
    stage = {"algorithm": "l1_norm", "dependency_groups": "auto", "config_list": [entry]}
    return {"pruning": {**stage, **keys}}


def groups(plan):
    return {
        one.name: one.pruning.dependency_group_id
        for one in plan
        if one.pruning.dependency_group_id is not None
    }


def test_the_plan_shows_the_groups_that_the_function_finds():
    model = Residual()
    plan = tersely.plan(model, recipe(), example_inputs=IMAGE)
    assert groups(plan) == {"stem.weight": "channels_of_stem", "outer.weight": "channels_of_stem"}
    written = tersely.auto_dependency_groups(model, recipe()["pruning"]["config_list"], IMAGE)
    by_hand = tersely.plan(model, {"pruning": {"algorithm": "l1_norm", "config_list": written}})
    assert groups(by_hand) == groups(plan)
    assert "dependency_group_id=channels_of_stem" in str(plan)


def test_what_is_tied_is_masked_alike_and_shrinks():
    model = Residual()
    session = tersely.attach(model, recipe(shrink=True), example_inputs=IMAGE)
    session.compress()
    masks = session.masks()
    assert torch.equal(
        masks["stem"]["weight"].flatten(1).any(1), masks["outer"]["weight"].flatten(1).any(1)
    )
    session.shrink()
    assert (model.stem.out_channels, model.outer.out_channels, model.head.in_features) == (4, 4, 4)


def test_a_saved_session_keeps_its_groups_without_a_further_run(tmp_path):
    session = tersely.attach(Residual(), recipe(), example_inputs=IMAGE)
    session.compress()
    session.save(tmp_path / "session")
    again = tersely.load_session(Residual(), tmp_path / "session")
    assert groups(again.plan) == groups(session.plan)


def test_an_id_of_the_entry_is_kept():
    entries = [
        {"op_names": ["stem"], "sparse_ratio": 0.5, "dependency_group_id": "mine"},
        {"op_names": ["outer"], "sparse_ratio": 0.5},
    ]
    plan = tersely.plan(Residual(), recipe(config_list=entries), example_inputs=IMAGE)
    assert groups(plan) == {"stem.weight": "mine", "outer.weight": "mine"}


def test_a_contradiction_names_the_stage():
    entries = [
        {"op_names": ["stem"], "sparse_ratio": 0.5},
        {"op_names": ["outer"], "sparse_ratio": 0.25},
    ]
    with pytest.raises(
        tersely.PlanError, match=r"pruning\.dependency_groups: stem\.weight and outer"
    ):
        tersely.plan(Residual(), recipe(config_list=entries), example_inputs=IMAGE)


def test_only_the_stage_that_asks_is_grouped():
    written = recipe()["pruning"]
    plain = {key: value for key, value in written.items() if key != "dependency_groups"}
    assert groups(tersely.plan(Residual(), {"pruning": plain}, example_inputs=IMAGE)) == {}


def test_each_repeated_block_is_a_group_of_whole_heads():
    torch.manual_seed(0)
    blocks = [nn.ModuleDict({name: nn.Linear(8, 8) for name in "qkvo"}) for _ in range(2)]
    model = nn.ModuleDict({"layers": nn.ModuleList(blocks)})
    keys = {
        "target_names": ["weight"],
        "sparse_ratio": 0.5,
        "dependency_group_id": "heads of {layer}",
    }
    entries = [
        {"op_names_re": [r"layers\.\d+\.[qkv]$"], "granularity": [4, -1], **keys},
        {"op_names_re": [r"layers\.\d+\.o$"], "granularity": [-1, 4], **keys},
    ]
    session = tersely.prune(model, entries, algorithm="l1_norm")
    assert set(groups(session.plan).values()) == {"heads of layers.0", "heads of layers.1"}
    masks = session.masks()
    for number in range(2):
        rows = [masks[f"layers.{number}.{name}"]["weight"].all(1) for name in "qkv"]
        columns = masks[f"layers.{number}.o"]["weight"].all(0)
        assert all(torch.equal(one, columns) for one in rows)
        assert sorted(columns.reshape(2, 4).all(1).tolist()) == [False, True]


def test_the_command_plans_with_an_example_of_its_own(tmp_path):
    (tmp_path / "grouped_parts.py").write_text(
        "import torch\n"
        "from torch import nn\n\n\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8))\n\n\n"
        "def example():\n"
        "    return torch.randn(1, 3, 8, 8)\n"
    )
    (tmp_path / "recipe.json").write_text(json.dumps(recipe()))
    command = ["plan", str(tmp_path / "recipe.json"), "--model", "grouped_parts:build"]
    done = CliRunner().invoke(cli, [*command, "--example", "grouped_parts:example", "--rows"])
    assert done.exit_code == 0, done.output
    _, _, rows = done.output.partition("decided by")
    assert rows.count("dependency_group_id=channels_of_0") == 2
    refused = CliRunner().invoke(cli, command)
    assert isinstance(refused.exception, tersely.PlanError)
    assert "--example to tersely plan" in str(refused.exception)
