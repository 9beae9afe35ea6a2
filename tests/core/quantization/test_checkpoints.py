"""Checkpoints of quantized models, loaded into freshly attached ones."""

import copy

import pytest
import torch

import tersely

DENSE_KEYS = ["0.weight", "0.bias", "1.weight", "1.bias"]


def quantized(model, algorithm, attach, config, batches):
    session = attach(model, algorithm, config)
    session.calibrate(batches)
    session.compress()
    return session


def config(scheme):
    targets = ["_input_", "weight", "_output_"]
    return [{"op_types": ["Linear"], "target_names": targets, "quant_scheme": scheme}]


def test_the_user_s_keys_stay(two, attach, everything):
    quantized(two, "toy_range", attach, everything, [torch.ones(1, 2)])

    added = [key for key in two.state_dict() if key not in DENSE_KEYS]
    assert [key for key in two.state_dict() if key in DENSE_KEYS] == DENSE_KEYS
    assert all(key.rpartition(".")[2].startswith("_tersely_") for key in added)


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("algorithm", ["toy_range", "toy_follow", "toy_learn", "toy_signs"])
def test_a_fresh_model_computes_what_the_checkpoint_s_did(algorithm, scheme, two, attach):
    fresh = copy.deepcopy(two)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    x = torch.tensor([[0.3, -0.7], [2.0, 0.1]])
    session = quantized(two, algorithm, attach, config(scheme), [x])
    again = attach(fresh, algorithm, config(scheme))

    missing, unexpected = fresh.load_state_dict(two.state_dict())

    assert (missing, unexpected) == ([], [])
    assert torch.equal(fresh.eval()(x), two.eval()(x))
    for module, targets in session.qparams().items():
        for target, qparams in targets.items():
            found = again.qparams()[module][target]
            assert torch.equal(found.scale, qparams.scale)
            assert torch.equal(found.zero_point, qparams.zero_point)


def test_a_zero_point_that_is_zero_replaces_another(two, attach):
    """A checkpoint leaves out zero points that are zero."""
    only = [{"op_names": ["0"], "target_names": ["_input_"], "quant_scheme": "affine"}]
    positive, even = torch.tensor([[1.0, 3.0]]), torch.tensor([[-1.27, 1.27]])
    first = copy.deepcopy(two)
    session = quantized(first, "toy_range", attach, only, [even])
    assert session.qparams()["0"]["_input_"].zero_point.item() == 0
    other = quantized(two, "toy_range", attach, only, [positive])
    assert other.qparams()["0"]["_input_"].zero_point.item() == -127

    two.load_state_dict(first.state_dict())

    assert other.qparams()["0"]["_input_"].zero_point.item() == 0
    assert torch.equal(two(positive), first(positive))


def test_a_dense_checkpoint_leaves_scales_alone(two, attach, everything):
    dense = copy.deepcopy(two.state_dict())
    session = quantized(two, "toy_learn", attach, everything, [torch.ones(1, 2)])
    before = session.qparams()["0"]["_input_"].scale

    two.load_state_dict(dense)

    assert torch.equal(session.qparams()["0"]["_input_"].scale, before)


def test_training_goes_on_from_a_checkpoint_of_what_was_learned(two, attach):
    twin = copy.deepcopy(two)
    session = attach(two, "toy_learn")
    session.compress()
    again = attach(twin, "toy_learn")
    twin.load_state_dict(two.state_dict())
    (1e-4 * twin[0].weight.sum()).backward()
    again.step()

    # As if `compress` had been called: 0.01 - 0.5 * 78e-4
    assert again.qparams()["0"]["weight"].scale.item() == pytest.approx(0.0061)


def test_tied_weights_share_what_a_checkpoint_brings(two, attach):
    two[1].weight = two[0].weight
    twin = copy.deepcopy(two)
    session = attach(two, "toy_learn")
    session.compress()
    again = attach(twin, "toy_learn")
    twin.load_state_dict(two.state_dict())
    (1e-4 * (twin[0].weight.sum() + twin[1].weight.sum())).backward()
    again.step()

    # Twice 78 steps.
    assert again.qparams()["0"]["weight"].scale.item() == pytest.approx(0.0022)
    assert torch.equal(twin[0].weight, twin[1].weight)


def test_what_another_algorithm_learned_is_unexpected(two, attach):
    session = attach(two, "toy_learn")
    session.compress()
    fresh = copy.deepcopy(two.state_dict())
    session.detach()
    attach(two, "toy_range")

    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\).*_learned_scale"):
        two.load_state_dict(fresh)


@pytest.mark.parametrize("algorithm", ["toy_range", "toy_follow", "toy_learn", "toy_shift"])
def test_a_loaded_session_goes_on_bit_for_bit(algorithm, two, attach, tmp_path):
    dense = copy.deepcopy(two.state_dict())
    session = quantized(two, algorithm, attach, config("affine")[:1], [torch.ones(1, 2)])
    train(two, session, steps=2)
    session.save(tmp_path / "session")
    twin = copy.deepcopy(two)
    plain = {key: value for key, value in twin.state_dict().items() if key in DENSE_KEYS}
    fresh = type(two)(*[torch.nn.Linear(2, 2) for _ in range(2)])
    fresh.load_state_dict(plain)
    again = tersely.load_session(fresh, tmp_path / "session")
    train(two, session, steps=3)
    train(fresh, again, steps=3)

    for name, tensor in two.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor), name
    if algorithm == "toy_shift":
        again.detach()
        assert torch.equal(fresh[0].weight - 0, dense["0.weight"])


def train(model, session, *, steps):
    """Scales alone are trained, so that weights can be compared with the dense ones."""
    model.train()
    for step in range(steps):
        model(torch.tensor([[1.0, step + 1.0]])).square().sum().mul(1e-6).backward()
        session.step()
        model.zero_grad()
