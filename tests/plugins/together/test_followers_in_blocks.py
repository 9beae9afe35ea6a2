"""Masks that follow others in blocks of their own."""

import torch
from torch import nn

import tersely


def in_pairs(name: str) -> list[dict[str, object]]:
    """Return the entries of a layer whose bias follows its rows two by two."""
    align = {"module_name": None, "target_name": "weight", "dims": [0]}
    follower = {"bias": {"align": align, "granularity": [2]}}
    rows = {"op_names": [name], "sparse_ratio": 0.5, "granularity": "out_channel"}
    return [
        {**rows, "target_names": ["weight"]},
        {"op_names": [name], "target_names": ["bias"], "target_settings": follower},
    ]


def test_many_small_followers_get_the_masks_that_each_alone_gets() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(3, 4) for _ in range(6)))
    entries = [one for index in range(6) for one in in_pairs(str(index))]

    session = tersely.prune(model, entries, algorithm="l1_norm")
    together = session.masks()
    session.detach()

    for name, masks in together.items():
        session = tersely.prune(model, in_pairs(name), algorithm="l1_norm")
        assert masks["bias"].tolist() == session.masks()[name]["bias"].tolist()
        assert masks["bias"].view(2, 2).float().std(1).max() == 0  # both of a pair, or neither
        session.detach()
