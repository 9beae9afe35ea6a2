"""What cannot be traced or expressed, and how it is told."""

import torch
from messages.planning import LEAVE_OUT_BY_NAME, NO_RULE, NO_VALUE_BRANCHES
from torch import nn

BY_HAND = f"{LEAVE_OUT_BY_NAME}, or write dependency_group_id by hand"


class Between(nn.Module):
    """Two convolutions and what stands between them."""

    def __init__(self, operation, *, before=8, after=8, layer=None):
        super().__init__()
        self.a = nn.Conv2d(3, before, 1)
        self.b = layer or nn.Conv2d(after, 4, 1)
        self.operation = operation

    def forward(self, x):
        return self.b(self.operation(self.a(x)))


class Added(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 6, 1)
        self.c, self.d = nn.Conv2d(3, 15, 1), nn.Conv2d(15, 2, 1)

    def forward(self, x):
        return self.d(torch.cat([self.a(x), self.b(x), x[:, :1]], 1) + self.c(x))


class Loose(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 2)
        self.mix = nn.Parameter(torch.eye(8))

    def forward(self, x):
        return self.b(self.a(x) @ self.mix)


class Query(nn.Module):
    """A learned query that goes through a linear layer."""

    def __init__(self):
        super().__init__()
        self.query = nn.Parameter(torch.ones(1, 4, 6))
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.c(self.a(self.query) + self.b(x).mean(1, keepdim=True))


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.auxiliary = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.a(x)


def unfollowed(names, reason):
    return f"{names}: the channels cannot be followed: {reason}; {BY_HAND}"


def test_rolled_channels_are_refused(refusal, image):
    assert refusal(Between(lambda x: x.roll(1, 1)), image) == unfollowed(
        "a.weight", "roll moves channels by a number that does not follow from their count"
    )


def test_an_operator_without_a_rule_is_named(refusal, image):
    model = Between(lambda x: x.flip(1).triu())

    assert refusal(model, image) == unfollowed("a.weight", f"{NO_RULE} the operator triu")


def test_channels_that_are_sorted_are_refused(refusal, image):
    model = Between(lambda x: x.sort(1).values)

    assert refusal(model, image) == unfollowed("a.weight", "sort mixes them")


def test_what_cannot_be_followed_may_be_left_out(tied, image):
    class Tail(nn.Module):
        def __init__(self):
            super().__init__()
            self.x, self.y = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
            self.tail = Between(lambda x: x.roll(1, 1))
            self.tail.a = nn.ConvTranspose2d(3, 8, 1)

        def forward(self, x):
            return self.tail(self.x(x) + self.y(x))

    assert tied(Tail(), image, types=("Conv2d",)) == ([["x", "y"]], {})


def test_a_product_with_a_free_parameter_makes_channels_of_its_own(tied, tokens):
    assert tied(Loose(), tokens) == ([], {})


def test_a_learned_query_is_followed(tied, tokens):
    assert tied(Query(), tokens) == ([["a", "b"]], {})


def test_a_tie_that_no_blocks_can_express_is_refused(refusal, image):
    assert refusal(Added(), image) == (
        "a.weight (8 channels), b.weight (6 channels), c.weight (15 channels) share some of their "
        "output channels, but not all of them in one order, as after a concatenation, and no "
        "equally many blocks of each go together; leave some of them out, with exclude_op_names: "
        "[a, b, c]"
    )


def test_a_module_that_does_not_run_is_refused(refusal, image):
    assert refusal(Unused(), image) == (
        "auxiliary.weight: the example_inputs do not lead through Conv2d, so that it is not known "
        f"what its channels meet; {BY_HAND}"
    )


def test_a_module_that_raises_is_named(refusal, image):
    assert refusal(Between(lambda x: x, after=6), image) == (
        "the model cannot be traced: with the example_inputs, module 'b' (Conv2d) raised "
        "RuntimeError: Given groups=1, weight of size [4, 6, 1, 1], expected input[2, 8, 8, "
        "8] to have 6 channels, but got 8 channels instead; give inputs that the model takes, "
        f"on its device, and {NO_VALUE_BRANCHES}"
    )


def test_an_output_without_a_gradient_is_followed(tied, image):
    class Detached(Between):
        def forward(self, x):
            return super().forward(x).detach()

    assert tied(Detached(lambda x: x), image) == ([], {})


def test_a_model_that_cannot_be_copied_is_told(refusal, image):
    class Stubborn(Between):
        def __deepcopy__(self, memo):
            raise TypeError("there is only one of me")

    assert refusal(Stubborn(lambda x: x), image) == (
        "the model cannot be traced: copying it raised TypeError: there is only one of me; tracing "
        "runs a copy so that the model stays as it is, so make copy.deepcopy(model) work"
    )


def test_a_branch_on_values_is_told(refusal, image):
    def strict(x):
        if x.isnan().any():
            raise ValueError("not a number")
        return x

    text = refusal(Between(strict), image)

    assert text.startswith("the model cannot be traced: with the example_inputs, it raised ")
    assert text.endswith(NO_VALUE_BRANCHES)
