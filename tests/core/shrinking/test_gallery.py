"""Networks of many kinds lose half of what they may: less than half is left, outputs are equal."""

import ast
from importlib import util
from pathlib import Path

import pytest
import torch

GALLERY = Path(__file__).with_name("gallery")
IMAGE = (torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)),)
STAYING = {
    "LocalResponse": "avg_pool3d mixes positions (avg_pool3d of the model)",
    "Normed": None,
}
"""Networks of which something stays, and why; None where only less is masked."""


def _names():
    for path in sorted(GALLERY.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "NETWORKS":
                yield from (f"{path.stem}.{key.id}" for key in node.value.keys)


@pytest.fixture(scope="session")
def gallery():
    """The modules of the directory ``gallery``, by name."""
    found = {}
    for path in GALLERY.glob("*.py"):
        place = util.spec_from_file_location(path.stem, path)
        found[path.stem] = util.module_from_spec(place)
        place.loader.exec_module(found[path.stem])
    return found


@pytest.mark.parametrize("name", list(_names()))
def test_half_of_a_network_goes(help, masks, gallery, name):
    file, _, cls = name.partition(".")
    network = getattr(gallery[file], cls)
    spec = gallery[file].NETWORKS[network]
    ends, heads = (spec["ends"], spec["heads"]) if isinstance(spec, dict) else (spec, None)
    torch.manual_seed(0)
    model = help.lived_in(network())
    inputs = model.example() if hasattr(model, "example") else IMAGE
    before = sum(one.numel() for one in model.parameters())
    kept = masks.half_of_all_groups(model, inputs, ends, heads=heads)

    found = help.shrink(model, inputs, kept)

    left = sum(one.numel() for one in model.parameters()) / before
    if cls in STAYING:
        assert {stay.reason for stay in found.stays} == {STAYING[cls]} - {None}
    else:
        assert found.stays == ()
        assert left < MOST.get(cls, 0.6)
    model.train()
    model(*inputs)  # training runs on what is left


MOST = {
    "ConvNeXt": 0.87,
    "Swin": 0.75,
    "Mixer": 0.71,
    "VisionTransformer": 0.65,
}
"""What is left of networks of which a norm over channels keeps a part."""
