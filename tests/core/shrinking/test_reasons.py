"""What is masked and stays says which operator of which module holds it, and what frees it."""

import pytest
import torch
from messages.planning import LEAVE_IT_OUT, NO_RULE
from messages.shrinking import (
    DEPENDS_ON_INPUT,
    EQUALLY_MANY,
    OTHER_DIMENSION,
    PADDED_CONSTANT,
    PRUNE_WITH_NORM,
    SAME_RATIO,
)
from torch import nn
from torch.nn import functional

IMAGE = (torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)),)


class Between(nn.Module):
    """A convolution, a step that keeps its masked channels, and a linear layer."""

    def __init__(self, step):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.step = step
        self.last = nn.Linear(8, 4)

    def forward(self, x):
        return self.last(self.step(self.first(x), x).mean((2, 3)))


class Added(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(8, 8, 1)

    def forward(self, y, x):
        return y + self.inner(y)


class AddedInput(nn.Module):
    def forward(self, y, x):
        return y + x.repeat(1, 3, 1, 1)[:, :8]


class Normalized(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def forward(self, y, x):
        return self.norm(y.movedim(1, 3)).movedim(3, 1)


class Softmax(nn.Module):
    def forward(self, y, x):
        return y.softmax(1)


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(8, 8, 1, groups=2)

    def forward(self, y, x):
        return self.inner(y)


class GroupNormalized(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.GroupNorm(4, 8)

    def forward(self, y, x):
        return self.norm(y)


class Padded(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, y, x):
        return self.inner(self.norm(y))


class Largest(nn.Module):
    def forward(self, y, x):
        return y * y.amax(1, keepdim=True)


class Sorted(nn.Module):
    def forward(self, y, x):
        return y.sort(1).values


class Inverted(nn.Module):
    def forward(self, y, x):
        return torch.linalg.inv(y @ y.mT + torch.eye(8))


class Halves(nn.Module):
    def forward(self, y, x):
        first, second = y.split([2, 6], 1)
        return torch.cat([first, second.roll(1, 1)], 1)


class Attended(nn.Module):
    def forward(self, y, x):
        heads = y.mean((2, 3)).view(2, 4, 1, 2)
        mixed = functional.scaled_dot_product_attention(heads, heads, heads)
        return mixed.reshape(2, 8, 1, 1)


GROUPED = "dependency_groups: auto, or one group id"

REASONS = {
    Added: (
        f"last {DEPENDS_ON_INPUT} (linear of last)",
        f"mask the same channels of step.inner.weight: {GROUPED}",
    ),
    AddedInput: (
        "add combines it with something that cannot be cut (add of step)",
        f"{LEAVE_IT_OUT} config: what it meets keeps its size",
    ),
    Normalized: (
        "layer_norm mixes all of them (layer_norm of step.norm)",
        OTHER_DIMENSION,
    ),
    Softmax: (
        "softmax mixes them (softmax of step)",
        OTHER_DIMENSION,
    ),
    Grouped: (
        f"{EQUALLY_MANY} (conv2d of step.inner)",
        SAME_RATIO,
    ),
    GroupNormalized: (
        f"last {DEPENDS_ON_INPUT} (linear of last)",
        "mask whole groups or heads of first.weight: a granularity of as many rows",
    ),
    Padded: (
        f"step.inner {PADDED_CONSTANT} (conv2d of step.inner)",
        PRUNE_WITH_NORM,
    ),
    Largest: (
        "amax reduces them (amax of step)",
        OTHER_DIMENSION,
    ),
    Sorted: (
        "sort mixes them (sort of step)",
        OTHER_DIMENSION,
    ),
    Inverted: (
        f"{NO_RULE} the operator linalg_inv (linalg_inv of step)",
        "leave the layers that it reads out of the config",
    ),
    Attended: (
        f"last {DEPENDS_ON_INPUT} (linear of last)",
        "mask whole groups or heads of first.weight: a granularity of as many rows",
    ),
}


@pytest.mark.parametrize("step", REASONS, ids=lambda step: step.__name__)
def test_a_reason_names_the_operator_and_its_module_and_comes_with_what_frees_it(help, step):
    torch.manual_seed(0)
    model = help.lived_in(Between(step()))
    kept = help.rows(model, ["first"], help.keep(8, [0, 2, 3, 5, 7]))
    found = help.shrink(model, IMAGE, kept)
    assert REASONS[step] in {(stay.reason, stay.hint) for stay in found.stays}


def test_masked_columns_of_a_first_layer_name_the_input(help):
    model = nn.Sequential(nn.Conv2d(3, 8, 3))
    kept = {"0.weight": help.keep(3, [0, 1]).view(1, 3, 1, 1).expand(8, 3, 3, 3)}
    [stay] = help.shrink(model, IMAGE, kept).stays
    assert str(stay) == (
        "0.weight: 1 masked slices of dimension 1 stay: 0 reads an input of the model there, or "
        "what stays whole (conv2d of 0); what frees them: leave the columns of the first layers "
        "out of the config"
    )


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.packed = nn.Linear(6, 24)
        self.last = nn.Linear(8, 2)

    def forward(self, x):
        heads = self.packed(x).view(2, 5, 3, 4, 2).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*heads.unbind(0))
        return self.last(mixed.transpose(1, 2).reshape(2, 5, 8)) + x[..., :2]


def test_a_head_of_which_part_stays_says_why_that_part_stays(help):
    torch.manual_seed(0)
    model = Packed()
    kept = help.rows(model, ["packed"], help.keep(24, set(range(24)) - {0, 1, 8, 9}))
    reasons = {stay.reason for stay in help.shrink(model, (torch.randn(2, 5, 6),), kept).stays}
    assert reasons
    assert all("of the model)" in reason or "of last)" in reason for reason in reasons)


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x):
        left, right = self.first(x).chunk(2, -1)
        return self.last(torch.cat([left.relu(), right.tanh()], -1))


def test_parts_that_are_all_masked_whole_keep_one_position_each(help):
    torch.manual_seed(0)
    model = Parts()
    kept = help.rows(model, ["first"], help.keep(8, []))
    found = help.shrink(model, (torch.randn(4, 6),), kept)
    assert model.first.weight.shape == (2, 6)
    rows = [s.count for s in found.stays if (s.target, s.dimension) == ("first.weight", 0)]
    assert sum(rows) == 2
