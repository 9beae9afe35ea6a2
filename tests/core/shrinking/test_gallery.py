"""Networks of many kinds lose half of what they may: less than half is left, outputs are equal."""

STAYING = {
    "LocalResponse": "avg_pool3d mixes positions (avg_pool3d of the model)",
    "Normed": None,
}
"""Networks of which something stays, and why; None where only less is masked."""


def test_half_of_a_network_goes(help, network):
    model, inputs = network.build()
    cls = type(model).__name__
    before = sum(one.numel() for one in model.parameters())

    found = help.shrink(model, inputs, network.halves())

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
