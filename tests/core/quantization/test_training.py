"""Training with quantized values: ranges that follow, scales that are learned."""

import copy
import io
import pickle

import pytest
import torch
from messages.sessions import NO_SCALE_YET
from torch import nn

from tersely.errors import CompressionWarning

INPUT = [{"op_names": ["0"], "target_names": ["_input_"]}]


@pytest.fixture
def one():
    """A linear layer that adds two values up."""
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    return model


def row(*values):
    return torch.tensor([values])


def scale(session, target="_input_"):
    return session.qparams()["0"][target].scale.item()


def test_a_range_moves_once_per_optimizer_step(one, attach):
    session = attach(one, "toy_follow", INPUT)
    one(row(127.0, 0.0))
    session.step()
    one(row(63.5, -1.0))

    # 0.5 * 127 + 0.5 * 63.5 = 95.25
    assert scale(session) == pytest.approx(0.75)


def test_a_range_moves_towards_the_range_of_all_calls_of_a_step(one, attach):
    session = attach(one, "toy_follow", INPUT)
    one(row(127.0, 0.0))
    session.step()
    for values in (row(31.75, 0.0), row(63.5, 0.0), row(15.0, -1.0)):
        one(values)

    # As one batch with 63.5 would: 0.5 * 127 + 0.5 * 63.5 = 95.25.
    assert scale(session) == pytest.approx(0.75)
    session.step()
    one(row(95.25, 0.0))
    assert scale(session) == pytest.approx(0.75)


def test_a_module_that_is_called_twice_before_backward_has_the_gradient_of_each_call(one, attach):
    session = attach(one, "toy_follow", INPUT)
    first, second = row(127.0, 0.4).requires_grad_(), row(300.0, 0.4).requires_grad_()
    one(row(127.0, 0.0))
    session.step()

    (one(first) + one(second)).sum().backward()

    # The first call keeps its own scale: 127 is inside its range although the second moved it.
    assert first.grad.abs().sum() > 0
    assert second.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"quant_dtype": "int8"}, None),  # always 0: nothing is added to any value
        ({"quant_dtype": "uint8"}, 128),
        # 0 to 127 are -127 to 127: 0 is -127.
        ({"quant_dtype": "int8", "quant_scheme": "affine"}, -127),
    ],
)
def test_a_zero_point_is_kept_where_it_can_be_another_one_than_zero(one, attach, setting, expected):
    session = attach(one, "toy_follow", [{**INPUT[0], **setting}])
    one(row(127.0, 0.0))

    kept = [tensor for name, tensor in one.state_dict().items() if name.endswith("zero_point")]
    assert [int(tensor) for tensor in kept] == ([] if expected is None else [expected])
    assert int(session.qparams()["0"]["_input_"].zero_point) == (expected or 0)


def test_a_range_rests_in_eval_mode(one, attach):
    session = attach(one, "toy_follow", INPUT)
    one(row(127.0, 0.0))
    one.eval()
    # Clamped to 127 and rounded to 4.
    assert one(row(500.0, 4.3)).item() == 131

    assert scale(session) == 1


def test_calibration_is_where_a_range_starts(one, attach):
    session = attach(one, "toy_follow", INPUT)
    session.calibrate([row(127.0, 0.0)])
    session.compress()
    one.train()
    one(row(63.5, 0.0))

    assert scale(session) == pytest.approx(0.75)


def test_values_are_quantized_from_the_start_step_on(one, attach):
    session = attach(one, "toy_follow", INPUT, start=2)
    found = []
    for _ in range(3):
        # Two backward passes for one step: a pass is no step.
        found += [one(row(127.0, 0.3)).item() for _ in range(2)]
        session.step()

    assert found == pytest.approx([127.3, 127.3, 127.3, 127.3, 127.0, 127.0])


def test_ranges_rest_after_the_freeze_step(one, attach):
    session = attach(one, "toy_follow", INPUT, freeze=1)
    one(row(127.0, 0.0))
    session.step()
    one(row(1270.0, 0.0))

    assert scale(session) == 1


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_what_is_not_finite_moves_no_range_and_is_told_once(one, attach, value):
    session = attach(one, "toy_follow", INPUT)
    one(row(127.0, 0.0))

    one(row(float(value), 0.0))

    assert scale(session) == 1
    with pytest.warns(UserWarning, match=r"not finite reached 0\._input_ in train"):
        session.step()
    one(row(float(value), 0.0))
    session.step()
    assert scale(session) == 0.5  # half of 127, and half of the 0 that was finite
    session.step()


def test_a_first_batch_without_a_finite_value_leaves_no_range(one, attach):
    session = attach(one, "toy_follow", INPUT)
    one(row(float("nan"), float("inf")))
    assert session.qparams() == {}
    one(row(127.0, 0.0))
    assert scale(session) == 1
    with pytest.warns(CompressionWarning):
        session.step()


def test_ranges_follow_the_finite_values_of_later_batches(one, attach):
    session = attach(one, "toy_follow", INPUT)
    one(row(127.0, 0.0))
    session.step()
    one(row(63.5, 0.0))
    assert scale(session) == pytest.approx(0.75)


def test_no_gradient_passes_what_is_clamped(one, attach):
    session = attach(one, "toy_follow", INPUT)
    one(row(127.0, 0.0))
    one.eval()
    x = row(200.0, 3.0).requires_grad_()
    one(x).backward()

    assert x.grad.tolist() == [[0, 1]]
    assert scale(session) == 1


@pytest.mark.parametrize("algorithm", ["toy_range", "toy_follow", "toy_learn"])
def test_under_autocast_scales_are_float32_and_values_are_not(algorithm, two, attach, everything):
    session = attach(two, algorithm, everything)
    session.calibrate([torch.ones(1, 2)])
    session.compress()
    two.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = two(torch.ones(1, 2))
        output.float().sum().backward()
    session.step()

    assert output.dtype is torch.bfloat16
    for targets in session.qparams().values():
        assert all(qparams.scale.dtype is torch.float32 for qparams in targets.values())


def learn(two, attach):
    """One step of the session: a loss of a ten-thousandth of the sum of the first weight."""
    session = attach(two, "toy_learn")
    session.compress()
    step_learning(two, session)
    return session


def step_learning(model, session):
    (1e-4 * model[0].weight.sum()).backward()
    session.step()


def test_a_scale_is_learned_by_the_session(two, attach):
    session = learn(two, attach)

    # 127 + 1 - 50 = 78 steps: 0.01 - 0.5 * 78e-4
    assert scale(session, "weight") == pytest.approx(0.0061)
    torch.testing.assert_close(
        two[0].weight, torch.tensor([[127 * 0.0061, 0.0], [0.0061, -50 * 0.0061]])
    )


def test_a_scale_is_learned_by_the_user_s_optimizer(two, attach):
    session = attach(two, "toy_learn")
    session.compress()
    optimizer = torch.optim.SGD(session.parameters(), lr=0.1)
    (1e-4 * two[0].weight.sum()).backward()
    optimizer.step()
    session.step()

    assert scale(session, "weight") == pytest.approx(0.00922)


def test_finalizing_bakes_what_was_learned(two, attach):
    session = learn(two, attach)
    expected = two[0].weight.detach().clone()
    session.finalize()

    assert torch.equal(two[0].weight, expected)
    assert list(two.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


@pytest.mark.parametrize("algorithm", ["toy_range", "toy_follow", "toy_learn", "toy_signs"])
def test_copies_and_pickles_compute_the_same(algorithm, two, attach, everything):
    session = attach(two, algorithm, everything)
    session.calibrate([torch.ones(1, 2)])
    session.compress()
    two.eval()
    x = torch.tensor([[0.3, -0.7]])
    file = io.BytesIO()
    torch.save(two, file)
    file.seek(0)

    copies = [
        copy.deepcopy(two),
        pickle.loads(pickle.dumps(two)),
        torch.load(file, weights_only=False),
    ]

    assert all(torch.equal(one(x), two(x)) for one in copies)


def test_a_copy_does_not_follow_the_training_of_the_original(one, attach):
    attach(one, "toy_follow", INPUT)
    one(row(127.0, 0.0))
    twin = copy.deepcopy(one).eval()
    one(row(1270.0, 0.0))

    assert twin(row(0.3, 1.0)).item() == 1


def test_targets_that_no_step_of_training_reaches_are_told_once(two, attach):
    session = attach(two, "toy_follow", [{"op_names": ["0", "1"], "target_names": ["_input_"]}])

    for _ in range(99):
        two[0](row(1.0, 2.0))
        session.step()
    with pytest.warns(CompressionWarning, match=r"in 100 steps no forward .* has reached 1\._in"):
        session.step()
    session.step()

    assert [one.text for one in session.report().remarks] == [
        f"{NO_SCALE_YET} for 1._input_; call session.compress()"
    ]


def test_targets_that_are_reached_are_not_told(one, attach):
    session = attach(one, "toy_follow", INPUT)

    for _ in range(101):
        one(row(1.0, 2.0))
        session.step()

    assert session.report().remarks == ()
