import pytest
import torch
from messages.planning import NO_SUCH_TYPE
from messages.sessions import LOSS_AND_STEP_FIRST, OR_A_SCHEDULE
from torch import nn

import tersely
from tersely import SessionError
from tersely_pruning.slim import Slim

WEIGHT = torch.tensor([[1.0, 2.0], [3.0, -4.0]])


def learned(*values):
    return {"factor": torch.tensor(values).requires_grad_()}


@pytest.mark.parametrize(
    ("shape", "size", "counts"),
    [
        ((4, 2, 3, 3), (1, -1, -1, -1), (4, 1, 1, 1)),  # convolution, grouped or not
        ((2, 4, 3), (-1, 1, -1), (1, 4, 1)),  # transposed convolution
        ((10, 6), (-1, 1), (1, 6)),  # embedding
        ((5,), (1,), (5,)),  # normalisation
        ((4, 8), (2, 4), (2, 2)),  # blocks
    ],
)
def test_every_block_starts_with_a_factor_of_one(target_of, shape, size, counts):
    started = Slim().start(target_of("slim", torch.zeros(shape), size))
    assert torch.equal(started["factor"], torch.ones(counts))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_factors_are_not_learned_in_half_precision(target_of, dtype, expected):
    started = Slim().start(target_of("slim", WEIGHT.to(dtype), (1, -1)))
    assert started["factor"].dtype == expected


def test_factors_of_a_tensor_without_values_have_values(target_of):
    started = Slim().start(target_of("slim", torch.empty(2, 2, device="meta"), (1, -1)))
    assert started["factor"].tolist() == [[1.0], [1.0]]


def test_forward_uses_the_weight_times_its_factor():
    found = Slim().masked(WEIGHT, None, learned([0.5], [2.0]))
    assert found.tolist() == [[0.5, 1.0], [6.0, -8.0]]


def test_forward_uses_the_weight_times_its_factor_times_its_mask():
    found = Slim().masked(WEIGHT, torch.tensor([[1.0], [0.0]]), learned([0.5], [2.0]))
    assert found.tolist() == [[0.5, 1.0], [0.0, 0.0]]


def test_factors_of_blocks_are_spread_over_them():
    value = torch.arange(8.0).reshape(2, 4)
    found = Slim().masked(value, None, learned([1.0, 10.0]))
    assert found.tolist() == [[0.0, 1.0, 20.0, 30.0], [4.0, 5.0, 60.0, 70.0]]


def test_a_factor_receives_the_gradient_of_its_block():
    factors = learned([0.5], [2.0])
    gradient = torch.tensor([[1.0, 1.0], [2.0, 1.0]])
    Slim().masked(WEIGHT, None, factors).backward(gradient)
    assert factors["factor"].grad.tolist() == [[3.0], [2.0]]


def test_the_weight_receives_its_gradient_times_the_factor():
    value = WEIGHT.clone().requires_grad_()
    Slim().masked(value, torch.tensor([[1.0], [0.0]]), learned([0.5], [2.0])).sum().backward()
    assert value.grad.tolist() == [[0.5, 0.5], [0.0, 0.0]]


def test_a_half_weight_stays_half():
    found = Slim().masked(WEIGHT.bfloat16(), None, learned([0.5], [2.0]))
    assert found.dtype == torch.bfloat16


def test_the_penalty_is_the_mean_over_targets_of_the_sum_of_magnitudes():
    # (1 + 2) and (0.5 + 0.5 + 3) have the mean 3.5.
    targets = [learned([1.0], [-2.0]), learned([0.5, -0.5, 3.0])]
    assert Slim(regular_scale=0.1).penalty(targets, 7).item() == pytest.approx(0.35)


def test_the_penalty_pulls_every_factor_towards_zero():
    factors = learned([0.5], [-2.0])
    Slim(regular_scale=0.25).penalty([factors], 0).backward()
    assert factors["factor"].grad.tolist() == [[0.25], [-0.25]]


def test_importance_is_the_magnitude_of_the_factor(target_of):
    target = target_of("slim", WEIGHT, (1, -1), learned=learned([0.5], [-2.0]))
    scores = Slim().importance(target)
    assert scores.tolist() == [[0.5], [2.0]]
    assert not scores.requires_grad


def test_factors_that_never_moved_are_nothing_to_rank_by(target_of):
    target = target_of("slim", WEIGHT, (1, -1), learned=learned([1.0], [1.0]))
    with pytest.raises(SessionError) as caught:
        Slim().importance(target)
    assert str(caught.value) == (
        "layer.weight: slim ranks by learned factors, and none has changed; "
        f"{LOSS_AND_STEP_FIRST}(...) and session.step() before session.compress(), "
        f"{OR_A_SCHEDULE}"
    )


def test_factors_move_as_fast_as_the_options_say():
    optimizer = Slim(learning_rate=0.125).optimizer(list(learned([1.0]).values()))
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.param_groups[0]["lr"] == 0.125


@pytest.mark.parametrize(
    ("algorithm", "options"), [("slim", {}), ("movement", {"cooldown_begin_step": 2})]
)
def test_a_learning_stage_may_select_nothing_beside_one_that_does(algorithm, options):
    model = nn.Sequential(nn.Linear(4, 4))
    entries = {"Linear": "level", "Conv2d": algorithm}
    stages = [
        {"algorithm": name, "config_list": [{"op_types": [one], "sparse_ratio": 0.5}]}
        for one, name in entries.items()
    ]
    stages[1]["options"] = options
    with pytest.warns(UserWarning, match=NO_SUCH_TYPE):
        session = tersely.attach(model, {"pruning": stages})
    session.compress()
    session.step()
    assert session.sparsity()["0"]["weight"] == 0.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_factors_are_learned_on_in_a_model_that_moves_to_another_dtype(dtype):
    model = nn.Sequential(nn.Linear(2, 2))
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}
    session = tersely.attach(model, {"pruning": {"algorithm": "slim", "config_list": [entry]}})

    def step(x):
        session.total_loss(model(x).float().square().sum()).backward()
        session.step()
        return session.learned()["pruning.0.weight.factor"].detach().float().clone()

    first = step(torch.ones(1, 2))
    model.to(dtype)
    second = step(torch.ones(1, 2, dtype=dtype))
    assert bool((second != first).all())
