"""Pruners that score blocks by their values alone are asked once about many small weights."""

import pytest
import torch
from counting import calls_of
from torch import nn

import tersely
from tersely.contracts import ScoresBlocks

ASKED = []
"""The shapes that a pruner was asked about."""

LIMITS = [
    {"sparse_ratio": 0.5},
    {"sparse_ratio": 0.29},
    {"sparse_threshold": 1.0},
    {"sparse_threshold": 1.0, "min_sparse_ratio": 0.3, "max_sparse_ratio": 0.6},
    {"sparse_ratio": 0.5, "granularity": "toy_tiles"},
    {"sparse_ratio": 0.5, "granularity": "toy_rows"},
    {"granularity": "toy_pairs"},
]


class Magnitudes(ScoresBlocks):
    def block_scores(self, tensor, blocks):
        ASKED.append(tuple(tensor.shape))
        return tensor.abs()


class Norms(ScoresBlocks):
    """One score for each block."""

    def block_scores(self, tensor, blocks):
        return tersely.reduce_blocks(tensor.abs(), blocks.size, torch.sum)


class OneByOne(Magnitudes):
    """What is overridden is asked about each target."""

    def importance(self, target):
        return super().importance(target)


class Failing(Magnitudes):
    """Fails on tensors that hold 9."""

    def block_scores(self, tensor, blocks):
        if bool((tensor == 9).any()):
            raise ValueError("it is 9")
        return super().block_scores(tensor, blocks)


class Listing(Magnitudes):
    def block_scores(self, tensor, blocks):
        return super().block_scores(tensor, blocks).tolist()


class Logarithms(ScoresBlocks):
    def block_scores(self, tensor, blocks):
        return tensor.abs().log()


class Pairs:
    """Of two neighbours the lower one is masked."""

    def blocks(self, shape, target):
        return tersely.Blocks((1,) * len(shape), (*(1,) * (len(shape) - 1), 2), 1)


class Tiles:
    def blocks(self, shape, target):
        return tersely.Blocks((2, 4))


class Rows:
    def blocks(self, shape, target):
        return tersely.Blocks((1, -1))


GRANULARITIES = (Pairs, Tiles, Rows)
CLASSES = (Magnitudes, Norms, OneByOne, Failing, Listing, Logarithms)


@pytest.fixture(autouse=True)
def _pruners(provide):
    infos = [
        tersely.PrunerInfo(
            name=f"toy_{one.__name__.lower()}", implementation=f"toys:{one.__name__}"
        )
        for one in CLASSES
    ]
    infos += [
        tersely.GranularityInfo(
            name=f"toy_{one.__name__.lower()}", implementation=f"toys:{one.__name__}"
        )
        for one in GRANULARITIES
    ]
    objects = {one.__name__: one for one in (*CLASSES, *GRANULARITIES)}
    ASKED.clear()
    with provide("toys", *infos, **objects):
        yield


def layers(count=6):
    """Linear layers of a few different magnitudes, so that many weights are tied."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(*(nn.Linear(8, 6, bias=False) for _ in range(count)))
    for layer in model:
        layer.weight.data = torch.randint(-3, 4, (6, 8), generator=generator).float() / 2
    return model


def masks_of(model, algorithm, **keys):
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5, **keys}
    if "sparse_threshold" in keys or keys.get("granularity") == "toy_pairs":
        del entry["sparse_ratio"]
    masks = tersely.prune(model, [entry], algorithm=algorithm).masks()
    return torch.stack([masks[name]["weight"] for name, _ in model.named_children()])


@pytest.mark.parametrize("limits", LIMITS, ids=str)
@pytest.mark.parametrize("algorithm", ["toy_magnitudes", "toy_norms"])
def test_masks_are_those_that_each_weight_gets_alone(algorithm, limits):
    assert torch.equal(
        masks_of(layers(), algorithm, **limits), masks_of(layers(), "toy_onebyone", **limits)
    )


def test_it_is_asked_once_about_weights_alike():
    masks_of(layers(), "toy_magnitudes")
    assert ASKED == [(6, 6, 8)]


@pytest.mark.parametrize(
    "keys", [{"global_group_id": "all"}, {"internal_metric_block": 2}], ids=["group", "runs"]
)
def test_it_is_asked_about_each_weight_that_is_not_decided_on_its_own(keys):
    masks_of(layers(), "toy_magnitudes", **keys)
    assert ASKED == [(6, 8)] * 6


def test_it_is_asked_about_each_weight_if_it_overrides_importance():
    masks_of(layers(), "toy_onebyone")
    assert ASKED == [(6, 8)] * 6


def test_few_and_large_weights_are_asked_about_one_at_a_time():
    masks_of(layers(3), "toy_magnitudes")
    masks_of(nn.Sequential(*(nn.Linear(70, 70, bias=False) for _ in range(5))), "toy_magnitudes")
    assert ASKED == [(6, 8)] * 3 + [(70, 70)] * 5


def test_weights_of_other_dtypes_are_asked_about_separately():
    model = layers(8)
    for layer in model[4:]:
        layer.double()
    masks_of(model, "toy_magnitudes")
    assert ASKED == [(4, 6, 8)] * 2


def test_a_failure_names_the_weight_that_it_is_about():
    model = layers()
    model[4].weight.data[1, 2] = 9
    with pytest.raises(tersely.PluginError, match=r"^toy_failing failed on 4\.weight: .* it is 9"):
        masks_of(model, "toy_failing")


def test_what_is_no_tensor_is_refused():
    with pytest.raises(tersely.PluginError, match=r"returned a list for 0\.weight; expected a te"):
        masks_of(layers(), "toy_listing")


def test_a_score_that_is_not_finite_is_told_of_the_weight_that_has_it():
    model = layers()
    for layer in model:
        layer.weight.data.abs_().add_(1)
    model[4].weight.data[0, 1] = 0
    with pytest.raises(tersely.CalibrationError, match=r"^4\.weight: 1 of its 48 importances"):
        masks_of(model, "toy_logarithms")


def test_each_weight_has_a_mask_of_its_own():
    model = layers()
    masks_of(model, "toy_magnitudes")
    buffers = [buffer for name, buffer in model.named_buffers() if "mask" in name]
    assert len({buffer.untyped_storage().data_ptr() for buffer in buffers}) == len(model) == 6


def test_a_small_weight_more_costs_few_calls():
    """80; 130 while each weight was scored by a call of its own."""
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.5}
    recipe = {"pruning": {"algorithm": "toy_magnitudes", "config_list": [entry]}}
    counts = {}
    for size in (50, 50, 150):  # the first also fills what is kept for good
        model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(size)))
        session = tersely.attach(model, recipe)
        session.compress()  # later masks are written in place
        counts[size] = calls_of(session.compress)

    assert (counts[150] - counts[50]) / 100 < 95
