"""A large model is planned and attached correctly; tests/benchmarks measures how fast."""

import torch
from torch import nn

import tersely


def test_weights_and_inputs_of_two_thousand_modules():
    root = nn.Module()
    for number in range(20):
        block = nn.Module()
        root.add_module(f"block{number}", block)
        for position in range(100):
            block.add_module(f"fc{position}", nn.Linear(2, 2, bias=False))
    entry = {
        "op_names_re": [r"block\d+\.fc\d+$"],
        "target_names": ["_input_", "weight"],
        "target_settings": {"_input_": {"align": {"target_name": "weight", "dims": [1]}}},
        "sparse_ratio": 0.5,
    }
    before = dict(root.named_parameters())

    session = tersely.prune(root, [entry], algorithm="toy")

    assert len(session.plan) == 4000
    assert all(one["weight"] == 0.5 for one in session.sparsity().values())
    assert dict(root.named_parameters()).keys() == before.keys()
    masks = session.masks()["block19.fc99"]
    assert torch.equal(masks["_input_"], masks["weight"].any(0))
    session.detach()
    assert {type(module) for module in root.modules()} == {nn.Module, nn.Linear}
    assert all(value is before[name] for name, value in root.named_parameters())
