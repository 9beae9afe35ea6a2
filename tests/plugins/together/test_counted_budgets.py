"""Ratios counted in parameters and operations: the shrunk model is what they ask for."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import tersely

INPUTS = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
IMAGE = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 3)
    )


def entry(budget, ratio=0.5, names=("0", "2")):
    return {
        "op_names": list(names),
        "sparse_ratio": ratio,
        "global_group_id": "g",
        "budget": budget,
    }


def operations(model):
    """Of one row of inputs, by hand: every weight is multiplied once."""
    return sum(one.weight.numel() for one in model if isinstance(one, nn.Linear))


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.75])
def test_the_shrunk_model_has_the_rest_of_the_operations(ratio):
    model = network()
    dense = operations(model)
    session = tersely.prune(
        model, [entry("macs", ratio)], algorithm="l1_norm", example_inputs=INPUTS
    )
    shrunk = session.shrink(INPUTS)
    assert shrunk.macs == (4 * dense, 4 * operations(model))
    # Within what one channel has to do with: 6 columns and 30 rows of the first layer.
    assert dense * (1 - ratio) - 36 <= operations(model) <= dense * (1 - ratio)


def test_the_shrunk_model_has_the_rest_of_the_parameters():
    model = network()
    dense = sum(one.numel() for one in model.parameters())
    config = [entry("parameters")]
    tersely.prune(model, config, algorithm="l1_norm", example_inputs=INPUTS).shrink(INPUTS)
    left = sum(one.numel() for one in model.parameters())
    assert dense / 2 - 37 <= left <= dense / 2


class Net(nn.Module):
    """Additions, groups, a norm whose channels follow, attention and a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point = nn.Conv2d(16, 16, 1)
        self.up, self.mix = nn.ConvTranspose2d(16, 12, 2, 2), nn.Conv2d(12, 8, 3, 2, groups=1)
        self.query, self.key, self.value = (nn.Linear(8, 20) for _ in range(3))
        self.out = nn.Linear(20, 4)
        self.heads, self.size = 4, 5

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = x + self.point(self.depth(x).relu())
        x = self.mix(self.up(x).relu()).flatten(2).transpose(1, 2)
        heads = [
            one(x).view(1, -1, self.heads, self.size).transpose(1, 2)
            for one in (self.query, self.key, self.value)
        ]
        mixed = functional.scaled_dot_product_attention(*heads)
        return self.out(mixed.transpose(1, 2).reshape(1, x.shape[1], -1))


def follow(module):
    return {"align": {"module_name": module, "target_name": "weight", "dims": [0]}}


def group(names, **keys):
    return {
        **entry("macs", 0.4, names),
        "target_names": ["weight"],
        "max_sparse_ratio": 0.75,
        **keys,
    }


NET = [
    group(["stem", "depth", "point"], dependency_group_id="residual"),
    {
        "op_names": ["depth", "point"],
        "target_names": ["bias"],
        "target_settings": {"bias": {"align": {"target_name": "weight", "dims": [0]}}},
    },
    {"op_names": ["norm"], "target_settings": {"weight": follow("stem"), "bias": follow("stem")}},
    group(["mix"]),
    group(["query", "key", "value"], granularity=[5, -1], dependency_group_id="heads"),
    group(["up"], granularity=[-1, 1, -1, -1]),
]


def test_what_is_counted_is_what_shrinking_counts():
    torch.manual_seed(0)
    model = Net().eval()
    session = tersely.attach(
        model, {"pruning": {"algorithm": "l1_norm", "config_list": NET}}, example_inputs=IMAGE
    )
    session.compress()
    counted = session._context.count
    kept = {
        f"{module}.{target}": mask
        for module, masks in session.masks().items()
        for target, mask in masks.items()
    }
    expected = counted("macs", kept), counted("parameters", kept)
    shrunk = session.shrink(IMAGE)
    assert expected[0].total == shrunk.macs[0]
    assert expected[0].total - expected[0].removed == shrunk.macs[1]
    assert expected[1].total - expected[1].removed == shrunk.parameters[1]
    assert shrunk.macs[1] <= 0.6 * shrunk.macs[0]


def test_a_schedule_counts_what_is_due():
    model = network()
    recipe = {
        "pruning": {
            "algorithm": "l1_norm",
            "schedule": {"name": "linear", "times": 2},
            "config_list": [entry("macs")],
        }
    }
    session = tersely.attach(model, recipe, example_inputs=INPUTS)
    session.compress()
    found = []
    for _ in range(2):
        session.step()
        small = copy.deepcopy(network())
        tersely.prune(
            small,
            [entry("macs", 0.25 * (len(found) + 1))],
            algorithm="l1_norm",
            example_inputs=INPUTS,
        )
        found.append(session.masks()["0"]["weight"].sum())
        assert torch.equal(session.masks()["0"]["weight"], ~(small[0].weight == 0))
    assert found[0] > found[1]


def test_a_loaded_session_goes_on_counting(tmp_path):
    recipe = {
        "pruning": {
            "algorithm": "l1_norm",
            "schedule": {"name": "linear", "times": 2},
            "config_list": [entry("macs")],
        }
    }
    session = tersely.attach(network(), recipe, example_inputs=INPUTS)
    session.compress()
    session.step()
    session.save(tmp_path)
    session.step()
    again = tersely.load_session(network(), tmp_path, example_inputs=INPUTS)
    again.step()
    assert torch.equal(again.masks()["2"]["weight"], session.masks()["2"]["weight"])
    blind = tersely.load_session(network(), tmp_path)
    with pytest.raises(tersely.SessionError, match=r"tersely\.load_session"):
        blind.step()


def test_without_example_inputs_nothing_is_attached():
    model = network()
    with pytest.raises(tersely.PlanError, match=r"give example_inputs to tersely\.attach"):
        tersely.prune(model, [entry("macs")], algorithm="l1_norm")
    assert type(model[0]) is nn.Linear


def test_a_model_that_cannot_be_exported_is_refused():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 8)

        def forward(self, x):
            return self.layer(x) if x.sum() > 0 else -self.layer(x)

    with pytest.raises(tersely.PlanError, match="budget counts what shrinking removes and cannot"):
        tersely.prune(
            Branching(),
            [entry("macs", names=["layer"])],
            algorithm="l1_norm",
            example_inputs=INPUTS,
        )


def test_the_report_does_not_take_the_ratio_for_a_share_of_elements():
    session = tersely.prune(network(), [entry("macs")], algorithm="l1_norm", example_inputs=INPUTS)
    text = str(session.report())
    assert "0.5, of macs over group g" in text
