"""Pruning by blocks of any shape (rules G6.1 to G6.5)."""

import sys

import pytest
import torch
from messages.blocks import IN_THAT_ORDER, empty_block
from torch import nn

import tersely

# Wrapped diagonals 0 to 3, whose sums of magnitudes are 4, 8, 12 and 16.
WEIGHT = torch.tensor(
    [[1.0, -2, 3, 4], [4, 1, 2, -3], [-3, 4, 1, 2], [2, 3, 4, -1]],
)
TWO_LOWEST_GO = [[0, 0, 1, 1], [1, 0, 0, 1], [1, 1, 0, 0], [0, 1, 1, 0]]


class Diagonals:
    def blocks(self, shape, target):
        rows, columns = torch.arange(shape[0])[:, None], torch.arange(shape[1])
        return tersely.Blocks(index=(columns - rows) % shape[1])


class Corner:
    """One element alone, and all others together."""

    def blocks(self, shape, target):
        index = torch.ones(shape, dtype=torch.int64)
        index.view(-1)[0] = 0
        return tersely.Blocks(index=index)


class TwoRows:
    """Rows 0 and 2 together, rows 1 and 3 together: what shrinking can let go."""

    def blocks(self, shape, target):
        rows = torch.arange(shape[0]) % 2
        return tersely.Blocks(index=rows.reshape(-1, *(1,) * (len(shape) - 1)).expand(shape))


class Gap:
    def blocks(self, shape, target):
        return tersely.Blocks(index=torch.full(shape, 1))


class OfAnother:
    def blocks(self, shape, target):
        return tersely.Blocks(index=torch.zeros(2, 2, dtype=torch.int64))


CLASSES = {
    "toy_diagonals": Diagonals,
    "toy_corner": Corner,
    "toy_two_rows": TwoRows,
    "toy_gap": Gap,
    "toy_of_another": OfAnother,
}


@pytest.fixture(autouse=True)
def numbered(toy_pruners, provide):
    infos = (
        tersely.GranularityInfo(name=name, implementation=f"tersely_numbered:{name}")
        for name in CLASSES
    )
    with provide("tersely_numbered", *infos, **CLASSES):
        yield


@pytest.fixture
def model():
    model = nn.Sequential(nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(WEIGHT)
    return model


def entry(granularity="toy_diagonals", **keys):
    return {
        "op_names": ["0"],
        "target_names": ["weight"],
        "target_settings": {"weight": {"granularity": granularity, **keys}},
    }


def pruned(model, granularity="toy_diagonals", **keys):
    return tersely.prune(model, [entry(granularity, **keys)], algorithm="toy")


def kept(session, module="0"):
    return session.masks()[module]["weight"].int().tolist()


def test_whole_blocks_are_masked_lowest_sum_first(model):
    session = pruned(model, sparse_ratio=0.5)
    assert kept(session) == TWO_LOWEST_GO
    assert session.sparsity() == {"0": {"weight": 0.5}}


def test_the_masked_weight_is_what_the_module_computes_with(model):
    pruned(model, sparse_ratio=0.5)
    assert model(torch.eye(4)).T.tolist() == (WEIGHT * torch.tensor(TWO_LOWEST_GO)).tolist()


def test_a_threshold_is_compared_with_the_sum_of_a_block(model):
    assert kept(pruned(model, sparse_threshold=8.5)) == TWO_LOWEST_GO


def test_blocks_of_different_sizes_count_their_elements(model):
    # 15 of 16 elements are in one block, which a ratio of 0.9 does not hold.
    session = pruned(model, "toy_corner", sparse_ratio=0.9)
    assert kept(session)[0][0] == 0
    assert session.sparsity() == {"0": {"weight": 1 / 16}}


def test_a_vector_whose_elements_are_numbered_in_another_order_is_refused(toy_pruners):
    model = nn.Sequential(nn.LayerNorm(4))

    class Turned:
        def blocks(self, shape, target):
            return tersely.Blocks(index=[3, 2, 1, 0])

    sys.modules["tersely_numbered"].toy_diagonals = Turned
    with pytest.raises(tersely.PlanError, match=IN_THAT_ORDER):
        pruned(model, sparse_ratio=0.5)


def test_a_schedule_follows_blocks(model):
    recipe = {
        "pruning": {
            "algorithm": "toy",
            "schedule": {"name": "toy_line", "begin": 0, "every": 1, "times": 2},
            "config_list": [entry(sparse_ratio=0.5)],
        }
    }
    session = tersely.attach(model, recipe)
    session.compress()
    shares = []
    for _ in range(2):
        session.step()
        shares.append(session.sparsity()["0"]["weight"])
    assert shares == [0.25, 0.5]


def test_a_plan_keeps_the_numbers_when_it_is_written_and_read(model):
    plan = tersely.plan(model, {"pruning": {"algorithm": "toy", "config_list": [entry()]}})
    again = tersely.Plan.from_dict(plan.to_dict())
    assert next(iter(again)).blocks == next(iter(plan)).blocks
    assert next(iter(again)).blocks.index.tolist()[1] == [3, 0, 1, 2]


def test_a_damaged_index_in_a_plan_is_refused(model):
    data = tersely.plan(
        model, {"pruning": {"algorithm": "toy", "config_list": [entry(sparse_ratio=0.5)]}}
    ).to_dict()
    data["targets"][0]["blocks"]["index"] = "eJwDAAAAAAE="
    with pytest.raises(tersely.PlanError, match=r"is not one of the shape \[4, 4\]"):
        tersely.Plan.from_dict(data)


def test_a_saved_session_goes_on_with_its_blocks(model, tmp_path):
    session = pruned(model, sparse_ratio=0.5)
    session.save(tmp_path / "saved")
    fresh = nn.Sequential(nn.Linear(4, 4, bias=False))
    fresh[0].weight.data.copy_(WEIGHT)
    again = tersely.load_session(fresh, tmp_path / "saved")
    assert kept(again) == TWO_LOWEST_GO
    again.compress()
    assert kept(again) == TWO_LOWEST_GO


def test_masks_may_be_set_by_hand(model):
    session = pruned(model, sparse_ratio=0.5)
    mask = torch.tensor(TWO_LOWEST_GO).bool().logical_not()
    session.set_masks({"0": {"weight": mask}})
    assert torch.equal(session.masks()["0"]["weight"], mask)


def test_targets_of_a_dependency_group_decide_by_number():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(WEIGHT)
        model[1].weight.copy_(WEIGHT * 0 + 1)
    both = {**entry(sparse_ratio=0.5, dependency_group_id="d"), "op_names": ["0", "1"]}
    session = tersely.prune(model, [both], algorithm="toy")
    assert kept(session, "0") == kept(session, "1") == TWO_LOWEST_GO


def test_a_follower_with_numbered_blocks_keeps_a_block_of_which_anything_is_kept(model):
    model.append(nn.Linear(4, 4, bias=False))
    follower = {
        "op_names": ["1"],
        "target_names": ["weight"],
        "target_settings": {
            "weight": {
                "granularity": "toy_two_rows",
                "align": {"module_name": "0", "target_name": "weight", "dims": [0]},
            }
        },
    }
    leader = entry("toy_corner", sparse_ratio=0.9)
    leader["target_settings"]["weight"]["granularity"] = "default"
    session = tersely.prune(model, [leader, follower], algorithm="toy_rows")
    # Three of the rows go, and one row of each pair is enough to keep it.
    assert kept(session, "1") == [[1] * 4 if row % 2 else [0] * 4 for row in range(4)]


def test_shrinking_removes_rows_that_numbered_blocks_mask():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.arange(16.0).reshape(4, 4))
    session = pruned(model, "toy_two_rows", sparse_ratio=0.5)
    data = torch.randn(3, 4, dtype=torch.float64)
    session.set_masks({"0": {"weight": torch.tensor([0, 1, 0, 1]).bool()[:, None]}})
    before = model(data)
    session.shrink(data)
    assert model[0].weight.shape == (2, 4)
    assert torch.allclose(model(data), before)
    assert next(iter(session.plan)).blocks.index.tolist() == [[0] * 4] * 2


def test_shrinking_finds_nothing_to_remove_in_diagonals(model):
    session = pruned(model, sparse_ratio=0.5)
    with pytest.raises(tersely.SessionError, match="no row or column masked whole"):
        session.shrink(torch.randn(3, 4))


@pytest.mark.parametrize(
    ("granularity", "message"),
    [
        (
            "toy_gap",
            (
                'granularity "toy_gap" returned no blocks for 0.weight of shape [4, 4]: '
                f"{empty_block(1, 0)}; number blocks without gaps"
            ),
        ),
        (
            "toy_of_another",
            'granularity "toy_of_another" returned no blocks for 0.weight of shape [4, 4]: the '
            "index of its blocks has shape [2, 2], expected the tensor's shape [4, 4]",
        ),
    ],
)
def test_a_wrong_index_is_the_plugins_fault(model, granularity, message):
    with pytest.raises(tersely.BrokenPluginError) as caught:
        pruned(model, granularity, sparse_ratio=0.5)
    assert str(caught.value).endswith(message)
    assert (caught.value.plugin, caught.value.target) == (granularity, "0.weight")


def test_a_report_counts_their_elements(model):
    row = pruned(model, sparse_ratio=0.5).report().rows[0]
    assert (row.sparsity, row.masked) == (0.5, 8)
