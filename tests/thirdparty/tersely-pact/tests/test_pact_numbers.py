"""Numbers by hand: clips and their gradient, chances, and how a saved session goes on."""

import pytest
import torch

import tersely

INPUTS = torch.tensor([[-1.0, 0.5, 1.2, 3.0]])


def attached(algorithm, target, *, dtype, scheme="affine", width=4, **options):
    entry = {
        "op_types": ["Linear"],
        "target_names": [target],
        "quant_dtype": dtype,
        "quant_scheme": scheme,
    }
    layer = torch.nn.Linear(width, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1)
    stage = {"algorithm": algorithm, "options": options, "config_list": [entry]}
    return tersely.attach(torch.nn.Sequential(layer), {"quantization": stage})


def clipped(decay=0.1):
    session = attached("pact", "_input_", dtype="uint2", decay=decay)
    session.calibrate([torch.tensor([[0.0, 0.5, 1.0, 2.0]])])
    session.compress()
    return session


def test_values_become_steps_up_to_the_clip():
    session = clipped()

    # The clip is 2 and a step 2/3: 0, 1, 2 and 3 steps.
    assert session.model(INPUTS).item() == pytest.approx(2 / 3 + 4 / 3 + 2)


def test_the_clip_gets_the_gradient_of_clipped_values_and_of_the_penalty():
    session = clipped()
    (clip,) = session.parameters()

    loss = session.total_loss(session.model(INPUTS).sum())
    loss.backward()

    # Of the four values one is clipped: 1. The penalty 0.1 * 2 * 2 has the gradient 0.1 * 2 * 2.
    assert loss.item() == pytest.approx(4 + 0.4)
    assert clip.grad.item() == pytest.approx(1 + 0.4)


def test_without_calibration_there_is_no_penalty():
    session = attached("pact", "_input_", dtype="uint2")

    assert session.loss().item() == 0


def rounding(seed=0, *, width=10_000):
    session = attached(
        "stochastic", "weight", dtype="int8", scheme="symmetric", width=width, seed=seed
    )
    with torch.no_grad():
        session.model[0].get_parameter("weight").fill_(0.25)
        session.model[0].get_parameter("weight")[0, 0] = 127
    session.compress()
    return session


def test_a_quarter_of_a_step_goes_up_in_a_quarter_of_the_cases():
    session = rounding()

    found = session.model[0].weight.detach()[0, 1:]

    # Steps of 1; the deviation of the mean of 9999 is 0.0043.
    assert set(found.tolist()) == {0, 1}
    assert found.mean().item() == pytest.approx(0.25, abs=0.02)


def test_every_call_rounds_anew_and_a_seed_gives_the_same_again():
    one, other, further = rounding(), rounding(), rounding(seed=1)

    first, second = one.model[0].weight.detach(), one.model[0].weight.detach()

    assert not torch.equal(first, second)
    assert torch.equal(first, other.model[0].weight.detach())
    assert not torch.equal(first, further.model[0].weight.detach())


def test_evaluation_integers_and_the_finished_weight_are_rounded_to_nearest():
    session = rounding(width=8)
    expected = [[127.0] + [0.0] * 7]

    assert session.integer_weights()["0"]["weight"].values.tolist() == expected
    assert session.model.eval()[0].weight.tolist() == expected
    assert session.model.train().training
    assert session.finalize()[0].weight.tolist() == expected


def test_a_saved_session_goes_on_with_the_next_random_numbers(tmp_path):
    session = rounding(width=64)
    _ = session.model[0].weight
    session.save(tmp_path)
    dense = torch.nn.Sequential(torch.nn.Linear(64, 1, bias=False))
    with torch.no_grad():
        dense[0].weight.copy_(dict(session.model.named_parameters())["0.weight"])

    restored = tersely.load_session(dense, tmp_path)

    assert torch.equal(session.model[0].weight.detach(), restored.model[0].weight.detach())
