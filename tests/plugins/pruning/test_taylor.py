import pytest
import torch
from messages.sessions import OR_A_SCHEDULE, SEEN_NONE, STEP_FIRST

from tersely import SessionError
from tersely_pruning.taylor import Taylor

WEIGHT = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
GRADIENT = torch.tensor([[1.0, 0.0], [2.0, 1.0]])
# Their products are 1, 0, 6 and -4, the squares of these 1, 0, 36 and 16.


@pytest.fixture
def observe(target_of):
    def observe_once(weight, gradient, size=None):
        return Taylor().observe_gradient(gradient, target_of("taylor", weight, size))

    return observe_once


def test_a_step_adds_the_squared_products_of_weights_and_gradients(observe):
    assert observe(WEIGHT, GRADIENT)["squares"].tolist() == [[1.0, 0.0], [36.0, 16.0]]


def test_squares_are_summed_over_rows(observe):
    assert observe(WEIGHT, GRADIENT, (1, -1))["squares"].tolist() == [[1.0], [52.0]]


def test_squares_are_summed_over_columns(observe):
    assert observe(WEIGHT, GRADIENT, (-1, 1))["squares"].tolist() == [[37.0, 16.0]]


def test_products_are_squared_before_they_are_summed(observe):
    # 2 * 3 - 6 * 1 = 0, yet taking both weights away is not the same as taking neither.
    observed = observe(torch.tensor([[2.0, -6.0]]), torch.tensor([[3.0, 1.0]]), (1, -1))
    assert observed["squares"].tolist() == [[72.0]]


def test_every_step_counts_once(observe):
    assert observe(WEIGHT, GRADIENT, (1, -1))["steps"].item() == 1.0


def test_importance_is_the_mean_over_steps(target_of):
    sums = {"squares": torch.tensor([[1.0], [52.0]]), "steps": torch.tensor(4.0)}
    target = target_of("taylor", WEIGHT, (1, -1), observed=sums)
    assert Taylor().importance(target).tolist() == [[0.25], [13.0]]


@pytest.mark.parametrize(
    ("shape", "size", "counts"),
    [
        ((4, 2, 3, 3), (1, -1, -1, -1), (4, 1, 1, 1)),  # convolution
        ((4, 1, 3, 3), (1, -1, -1, -1), (4, 1, 1, 1)),  # depthwise convolution
        ((2, 4, 3), (-1, 1, -1), (1, 4, 1)),  # transposed convolution
        ((10, 6), (-1, 1), (1, 6)),  # embedding
        ((4, 8), (2, 4), (2, 2)),  # blocks
        ((5,), (1,), (5,)),  # normalisation
        ((), (), ()),
    ],
)
def test_there_is_one_sum_per_block(observe, shape, size, counts):
    observed = observe(torch.full(shape, 2.0), torch.full(shape, 0.5), size)
    elements = torch.Size(shape).numel() // torch.Size(counts).numel()
    assert torch.equal(observed["squares"], torch.full(counts, float(elements)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_weights_are_squared_in_float32(observe, dtype):
    # 2^-24 squared is far below the smallest float16.
    weight = torch.full((1, 2), 2.0**-14, dtype=dtype)
    observed = observe(weight, torch.full((1, 2), 2.0**-10, dtype=dtype), (1, -1))
    assert observed["squares"].dtype == torch.float32
    assert observed["squares"].item() == 2 * 2.0**-48


def test_weights_and_gradients_are_left_as_they_were(observe):
    weight, gradient = WEIGHT.clone(), GRADIENT.clone()
    observe(weight, gradient)
    assert torch.equal(weight, WEIGHT)
    assert torch.equal(gradient, GRADIENT)


def test_without_a_step_there_is_nothing_to_rank_by(target_of):
    with pytest.raises(SessionError) as caught:
        Taylor().importance(target_of("taylor", WEIGHT))
    assert str(caught.value) == (
        f"layer.weight: taylor ranks by gradients and {SEEN_NONE}; {STEP_FIRST} before "
        f"session.compress(), {OR_A_SCHEDULE}"
    )
