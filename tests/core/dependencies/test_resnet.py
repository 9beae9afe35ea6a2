"""A network of the size that people prune; tests/benchmarks/test_start.py measures the time."""

import torch

import tersely


def test_every_stage_of_resnet_50_is_one_group(resnet):
    given = [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]

    found = tersely.auto_dependency_groups(resnet.resnet50(), given, torch.randn(1, 3, 64, 64))

    # One group for each stage: the projection and the last convolution of every block.
    assert [len(entry["op_names"]) for entry in found[:-1]] == [4, 5, 7, 4]
