import itertools

import pytest
import torch

import tersely
from tersely_pruning.random import Random

WEIGHT = torch.zeros(8, 4)


def test_the_same_seed_and_name_give_the_same_scores(target_of):
    target = target_of("random", WEIGHT)
    assert torch.equal(Random(seed=3).importance(target), Random(seed=3).importance(target))


def test_another_seed_gives_other_scores(target_of):
    target = target_of("random", WEIGHT)
    assert not torch.equal(Random(seed=3).importance(target), Random(seed=4).importance(target))


def test_another_target_gets_other_scores(target_of):
    one, other = target_of("random", WEIGHT), target_of("random", WEIGHT, name="weight_2")
    assert not torch.equal(Random().importance(one), Random().importance(other))


def test_scores_come_from_the_checksum_of_the_name_that_goes_on_from_the_seed(target_of):
    # 478667881 is the CRC-32 of "layer.weight".
    expected = torch.rand(8, 4, generator=torch.Generator().manual_seed(478667881))
    assert torch.equal(Random(seed=0).importance(target_of("random", WEIGHT)), expected)


def test_the_largest_seed_is_accepted(target_of):
    assert Random(seed=2**31 - 1).importance(target_of("random", WEIGHT)).isfinite().all()


def test_nothing_is_drawn_from_the_global_generator(target_of):
    before = torch.random.get_rng_state()
    Random().importance(target_of("random", WEIGHT))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("size", "counts"), [(None, (8, 4)), ((1, -1), (8, 1)), ((2, 2), (4, 2)), ((-1, -1), (1, 1))]
)
def test_there_is_one_score_per_block(target_of, size, counts):
    assert Random().importance(target_of("random", WEIGHT, size)).shape == counts


def test_what_is_masked_stays_masked_while_sparsity_grows():
    recipe = {
        "pruning": {
            "algorithm": "random",
            "schedule": {"name": "linear", "every": 1, "times": 3},
            "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.75}],
        }
    }
    session = tersely.attach(torch.nn.Sequential(torch.nn.Linear(4, 4)), recipe)
    session.compress()
    masks = []
    for _ in range(3):
        session.step()
        masks.append(session.masks()["0"]["weight"])
    assert [int((~mask).sum()) for mask in masks] == [4, 8, 12]
    assert all(bool((later <= earlier).all()) for earlier, later in itertools.pairwise(masks))
