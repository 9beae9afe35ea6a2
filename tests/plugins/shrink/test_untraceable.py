"""What cannot be traced or expressed, and how it is told."""

import pytest
import torch
import torch_pruning
from torch import nn
from torch.nn import functional

import tersely

CONVOLUTIONS = [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]
BY_HAND = "leave it out with exclude_op_names, or write dependency_group_id by hand"


class Between(nn.Module):
    """Two convolutions and what stands between them."""

    def __init__(self, operation, *, before=8, after=8, layer=None):
        super().__init__()
        self.a = nn.Conv2d(3, before, 1)
        self.b = layer or nn.Conv2d(after, 4, 1)
        self.operation = operation

    def forward(self, x):
        return self.b(self.operation(self.a(x)))


def shuffle(x):
    batch, channels, height, width = x.shape
    return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(x.shape)


def rows_first(x):
    return x.permute(0, 2, 3, 1).flatten(1)


class Added(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.c, self.d = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 2, 1)

    def forward(self, x):
        return self.d(torch.cat([self.a(x), self.b(x)], 1) + self.c(x))


class Repeated(nn.Module):
    """Two heads of key and value for four of query."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 16), nn.Linear(6, 8), nn.Linear(6, 8)
        self.out = nn.Linear(16, 6)

    def forward(self, x):
        batch, length, _ = x.shape
        q = self.q(x).view(batch, length, 4, 4).transpose(1, 2)
        k, v = (
            project(x)
            .view(batch, length, 2, 4)
            .transpose(1, 2)[:, :, None]
            .expand(batch, 2, 2, length, 4)
            .reshape(batch, 4, length, 4)
            for project in (self.k, self.v)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Loose(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 2)
        self.mix = nn.Parameter(torch.eye(8))

    def forward(self, x):
        return self.b(self.a(x) @ self.mix)


class Query(nn.Module):
    """A learned query that goes through a linear layer, which is no loose product."""

    def __init__(self):
        super().__init__()
        self.query = nn.Parameter(torch.ones(1, 4, 6))
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.c(self.a(self.query) + self.b(x).mean(1, keepdim=True))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.lstm(x)[0])


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.auxiliary = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.a(x)


def reordered(names, module, operations):
    return (
        f"{names}: the channels cannot be traced: the channels that enter {module} are not those "
        f"that were traced to it; an operation before it reorders or mixes them in a way that "
        f"torch-pruning does not follow ({operations}); {BY_HAND}"
    )


def test_a_channel_shuffle_is_refused(refusal, image):
    assert refusal(Between(shuffle), image) == reordered(
        "a.weight",
        "module 'b' (Conv2d)",
        "UnsafeViewBackward0, CloneBackward0, TransposeBackward0, ViewBackward0",
    )


def test_flattening_with_the_channels_last_is_refused(refusal, image):
    model = Between(rows_first, layer=nn.Linear(512, 2))

    assert refusal(model, image) == reordered(
        "a.weight",
        "module 'b' (Linear)",
        "UnsafeViewBackward0, CloneBackward0, PermuteBackward0",
    )


def test_rolled_channels_are_refused(refusal, image):
    text = refusal(Between(lambda x: x.roll(1, 1)), image)

    assert text == reordered("a.weight", "module 'b' (Conv2d)", "RollBackward0")


def test_a_pixel_shuffle_is_refused_with_both_modules(refusal, image):
    model = Between(lambda x: functional.pixel_shuffle(x, 2), after=2)

    assert refusal(model, image) == (
        "a.weight: the channels cannot be traced: module 'b' (Conv2d) has 2 channels where module "
        "'a' (Conv2d) has 8, and what lies between them is no operation that the tracer knows to "
        f"change the number; {BY_HAND}"
    )


def test_what_cannot_be_followed_may_be_left_out(tied, image):
    class Tail(nn.Module):
        def __init__(self):
            super().__init__()
            self.x, self.y = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
            self.tail = Between(shuffle)
            self.tail.a = nn.ConvTranspose2d(3, 8, 1)

        def forward(self, x):
            return self.tail(self.x(x) + self.y(x))

    assert tied(Tail(), image, types=("Conv2d",)) == ([["x", "y"]], {})


def test_a_parameter_multiplied_outside_of_a_module_is_named(refusal, tokens):
    assert refusal(Loose(), tokens) == (
        "a.weight: the channels cannot be traced: parameter 'mix' is multiplied outside of a "
        f"module that torch-pruning knows; {BY_HAND}"
    )


def test_a_learned_query_is_followed(tied, tokens):
    assert tied(Query(), tokens) == ([["a", "b"]], {})


def test_a_tie_that_no_id_can_express_is_refused(refusal, image):
    assert refusal(Added(), image) == (
        "a.weight (8 channels), b.weight (8 channels), c.weight (16 channels) share some of their "
        "output channels, but not all of them in one order, as after a concatenation or repeated "
        "heads; a dependency_group_id ties channel i of each to channel i of all, so leave some "
        "of them out, with exclude_op_names: [a, b, c]"
    )


def test_heads_that_serve_several_queries_are_refused(refusal, tokens):
    assert refusal(Repeated(), tokens).startswith(
        "q.weight (16 channels), k.weight (8 channels), v.weight (8 channels) share some of their "
    )


def test_recurrent_weights_are_refused(refusal, tokens):
    assert refusal(Recurrent(), tokens, types=("LSTM",)) == (
        "lstm.weight_ih_l0, lstm.weight_hh_l0: its 32 blocks are not the 8 output channels of "
        f"module 'lstm' (LSTM), so they cannot be tied to the channels of other modules; {BY_HAND}"
    )


def test_a_module_that_does_not_run_is_refused(refusal, image):
    assert refusal(Unused(), image) == (
        "auxiliary.weight: the trace does not meet Conv2d: the example_inputs do not lead through "
        "it, its result reaches no output with a gradient, or torch-pruning does not know the "
        f"type; {BY_HAND}"
    )


def test_a_module_that_raises_is_named(refusal, image):
    assert refusal(Between(lambda x: x, after=6), image) == (
        "the model cannot be traced: with the example_inputs, module 'b' (Conv2d) raised "
        "RuntimeError: Given groups=1, weight of size [4, 6, 1, 1], expected input[2, 8, 8, 8] to "
        "have 6 channels, but got 8 channels instead; give inputs that the model takes, on its "
        "device"
    )


def test_an_output_without_a_gradient_is_told(refusal, image):
    class Detached(Between):
        def forward(self, x):
            return super().forward(x).detach()

    assert refusal(Detached(lambda x: x), image) == (
        "the model cannot be traced: none of its outputs depends on a parameter with a gradient; "
        "its forward runs under no_grad, detaches, or returns no tensor"
    )


def test_a_model_that_cannot_be_copied_is_told(refusal, image):
    class Stubborn(Between):
        def __deepcopy__(self, memo):
            raise TypeError("there is only one of me")

    assert refusal(Stubborn(lambda x: x), image) == (
        "the model cannot be traced: copying it raised TypeError: there is only one of me; tracing "
        "runs a copy so that the model stays as it is, so make copy.deepcopy(model) work"
    )


def test_a_model_that_does_not_bear_nans_is_told(refusal, image):
    def strict(x):
        if x.isnan().any():
            raise ValueError("not a number")
        return x

    assert refusal(Between(strict), image) == (
        "what was traced cannot be checked, because the model does not run when some of its "
        "channels are NaN: ValueError: not a number; write dependency_group_id by hand"
    )


def test_a_failure_of_torch_pruning_is_chained(refusal, image, monkeypatch):
    def fail(self, nodes):
        raise KeyError("node")

    monkeypatch.setattr(torch_pruning.DependencyGraph, "_build_dependency", fail)

    assert refusal(Between(lambda x: x), image) == (
        f"the model cannot be traced: torch-pruning {torch_pruning.__version__} raised KeyError: "
        "'node'; leave out the part of the model that it cannot follow, or write "
        "dependency_group_id by hand"
    )
    with pytest.raises(tersely.PlanError) as caught:
        tersely.auto_dependency_groups(Between(lambda x: x), CONVOLUTIONS, image)
    assert isinstance(caught.value.__cause__, KeyError)
