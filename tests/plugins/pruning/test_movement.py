from fractions import Fraction

import pytest
import torch

from tersely_pruning.movement import Movement

WEIGHT = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
GRADIENT = torch.tensor([[1.0, 1.0], [2.0, 1.0]])


@pytest.fixture
def movement():
    return Movement(warmup_steps=2, cooldown_begin_step=6, regular_scale=0.5)


def scores(*values, name="score"):
    return {name: torch.tensor(values).requires_grad_()}


def test_sparsity_grows_along_a_cubic_from_the_warm_up_to_the_cool_down(movement):
    # t = 1/4, 1/2 and 3/4 leave 27/64, 1/8 and 1/64.
    factors = [movement.factor(steps) for steps in range(9)]
    grown = [Fraction(37, 64), Fraction(7, 8), Fraction(63, 64)]
    assert factors == [0, 0, 0, *grown, 1, 1, 1]


def test_without_a_ramp_all_sparsity_is_due_after_the_warm_up():
    movement = Movement(warmup_steps=3, cooldown_begin_step=3)
    assert [movement.factor(steps) for steps in range(6)] == [0, 0, 0, 0, 1, 1]


def test_a_cool_down_before_the_warm_up_ends_is_an_error():
    with pytest.raises(ValueError, match="cooldown") as caught:
        Movement(warmup_steps=5, cooldown_begin_step=4)
    assert str(caught.value) == (
        "cooldown_begin_step 4 is before the end of the warm-up, warmup_steps 5; sparsity grows "
        "between the two"
    )


@pytest.mark.parametrize(
    ("shape", "size", "counts"),
    [
        ((4, 2, 3, 3), (1, -1, -1, -1), (4, 1, 1, 1)),  # convolution, grouped or not
        ((2, 4, 3), (-1, 1, -1), (1, 4, 1)),  # transposed convolution
        ((10, 6), (-1, 1), (1, 6)),  # embedding
        ((4, 8), (1, 1), (4, 8)),  # elements
        ((4, 8), (2, 4), (2, 2)),  # blocks
    ],
)
def test_every_block_starts_with_a_score_of_zero(target_of, movement, shape, size, counts):
    started = movement.start(target_of("movement", torch.ones(shape), size))
    assert torch.equal(started["score"], torch.zeros(counts))


def test_a_target_with_a_threshold_learns_logits(target_of, movement):
    target = target_of("movement", WEIGHT, setting={"sparse_threshold": 0.5, "sparse_ratio": None})
    assert list(movement.start(target)) == ["logit"]


def test_scores_are_not_learned_in_half_precision(target_of, movement):
    started = movement.start(target_of("movement", WEIGHT.bfloat16()))
    assert started["score"].dtype == torch.float32


def test_forward_uses_the_weight_whatever_the_scores_are(movement):
    assert torch.equal(movement.masked(WEIGHT, None, scores([5.0], [-5.0])), WEIGHT)


def test_forward_uses_the_weight_times_its_mask(movement):
    found = movement.masked(WEIGHT, torch.tensor([[1.0], [0.0]]), scores([5.0], [-5.0]))
    assert found.tolist() == [[1.0, 2.0], [0.0, 0.0]]


def test_a_score_receives_the_sum_over_its_block_of_gradient_times_weight(movement):
    learned = scores([0.0], [0.0])
    movement.masked(WEIGHT, None, learned).backward(GRADIENT)
    assert learned["score"].grad.tolist() == [[3.0], [2.0]]


def test_scores_of_single_elements_receive_gradient_times_weight(movement):
    learned = scores([0.0, 0.0], [0.0, 0.0])
    movement.masked(WEIGHT, None, learned).backward(GRADIENT)
    assert learned["score"].grad.tolist() == [[1.0, 2.0], [6.0, -4.0]]


def test_scores_of_blocks_of_four_receive_the_sum_over_four(movement):
    learned = scores([0.0, 0.0])
    value = torch.arange(8.0).reshape(2, 4)
    movement.masked(value, None, learned).backward(torch.ones(2, 4))
    assert learned["score"].grad.tolist() == [[10.0, 18.0]]


def test_a_masked_block_goes_on_learning_its_score(movement):
    learned = scores([0.0], [0.0])
    movement.masked(WEIGHT, torch.tensor([[1.0], [0.0]]), learned).backward(GRADIENT)
    assert learned["score"].grad.tolist() == [[3.0], [2.0]]


def test_a_masked_weight_receives_no_gradient(movement):
    value = WEIGHT.clone().requires_grad_()
    movement.masked(value, torch.tensor([[1.0], [0.0]]), scores([0.0], [0.0])).backward(GRADIENT)
    assert value.grad.tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_a_frozen_weight_lets_its_scores_learn(movement):
    learned = scores([0.0], [0.0])
    movement.masked(WEIGHT.clone(), None, learned).sum().backward()
    assert learned["score"].grad.tolist() == [[3.0], [-1.0]]


def test_scores_of_half_weights_receive_gradients_of_their_own_dtype(movement):
    learned = scores([0.0], [0.0])
    found = movement.masked(WEIGHT.bfloat16(), None, learned)
    found.backward(GRADIENT.bfloat16())
    assert found.dtype == torch.bfloat16
    assert learned["score"].grad.tolist() == [[3.0], [2.0]]


# torch 2.13 makes one of its own deprecated objects while it captures any autograd.Function.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("mask", [None, torch.tensor([[1.0], [0.0]])])
def test_it_is_captured_as_one_graph(movement, mask):
    torch.compiler.reset()
    learned = scores([0.0], [0.0])
    value = WEIGHT.clone().requires_grad_()
    step = torch.compile(
        lambda: movement.masked(value, mask, learned), fullgraph=True, backend="aot_eager"
    )
    step().backward(GRADIENT)
    assert learned["score"].grad.tolist() == [[3.0], [2.0]]


def test_the_penalty_is_the_mean_over_targets_of_the_mean_gate(movement):
    # sigmoid(0) = 1/2 and sigmoid(log 3) = 3/4; after 4 steps 7/8 of the penalty is due.
    log_three = torch.tensor(3.0).log().item()
    targets = [scores(0.0, 0.0, name="logit"), scores(0.0, log_three, name="logit")]
    expected = 0.5 * 7 / 8 * (0.5 + 0.625) / 2
    assert movement.penalty(targets, 4).item() == pytest.approx(expected)


def test_there_is_no_penalty_in_the_warm_up(movement):
    assert movement.penalty([scores(0.0, name="logit")], 2).item() == 0.0


def test_targets_with_a_ratio_have_no_penalty(movement):
    assert movement.penalty([scores(3.0), scores(0.0, name="logit")], 6).item() == 0.25
    assert movement.penalty([scores(3.0)], 6).item() == 0.0


def test_importance_is_the_score(target_of, movement):
    target = target_of("movement", WEIGHT, (1, -1), learned=scores([0.5], [-2.0]))
    found = movement.importance(target)
    assert found.tolist() == [[0.5], [-2.0]]
    assert not found.requires_grad


def test_importance_is_the_gate_where_a_threshold_is_compared_with_it(target_of, movement):
    learned = scores([0.0], [-2.0], name="logit")
    found = movement.importance(target_of("movement", WEIGHT, (1, -1), learned=learned))
    assert found.flatten().tolist() == pytest.approx([0.5, 1 / (1 + torch.e**2)])


def test_scores_move_as_fast_as_the_options_say():
    movement = Movement(cooldown_begin_step=1, learning_rate=0.125)
    optimizer = movement.optimizer(list(scores([1.0]).values()))
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.param_groups[0]["lr"] == 0.125
