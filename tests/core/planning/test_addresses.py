"""Target names read as addresses, and the arguments they can mean."""

import pytest
from messages.planning import NO_SUCH_ARGUMENT
from torch import nn

from tersely.planning.selecting.classes import ORIGINAL, is_type, original_class
from tersely.planning.targets.addresses import Address, parse_address, twin
from tersely.planning.targets.signature import signature_of


@pytest.mark.parametrize(
    ("target", "address"),
    [
        ("_input_", Address("input")),
        ("_input_2", Address("input", 2)),
        ("_input_mask", Address("input", "mask")),
        ("_output_", Address("output")),
        ("_output_0", Address("output", 0)),
        ("_output_last_hidden_state", Address("output", "last_hidden_state")),
        ("weight", None),
        ("input", None),
        ("_inputs", None),
    ],
)
def test_a_target_name_is_an_address_or_a_parameter(target, address):
    assert parse_address(target) == address


@pytest.mark.parametrize(
    ("target", "other"),
    [("_input_", "_input_0"), ("_output_0", "_output_"), ("_input_1", None), ("weight", None)],
)
def test_only_the_first_argument_has_another_spelling(target, other):
    assert twin(target) == other


class Wide(nn.Module):
    def forward(self, a, /, b, *rest, c, d=1, **more):
        return a


def test_a_signature_knows_every_sort_of_argument():
    signature = signature_of(Wide())

    assert signature.positional == ("a", "b")
    assert signature.keyword_only == ("c", "d")
    assert (signature.has_var_positional, signature.has_var_keyword) == (True, True)
    assert signature.defaults == {"d": 1}


@pytest.mark.parametrize("key", [None, 0, 7, "a", "b", "c", "anything"])
def test_an_open_signature_takes_every_address(key):
    assert signature_of(Wide()).problem(key) is None


def test_a_forward_without_arguments_says_none():
    class Constant(nn.Module):
        def forward(self):
            return 1

    signature = signature_of(Constant())

    assert signature.problem("x") == f"{NO_SUCH_ARGUMENT} none"
    assert signature.problem(0) == "forward takes no positional arguments"


def test_the_class_behind_a_class_made_on_the_fly_is_found():
    made = type("Linear", (nn.Linear,), {ORIGINAL: nn.Linear})
    again = type("Linear", (made,), {ORIGINAL: made})

    assert original_class(again) is nn.Linear


def test_the_class_behind_a_sharded_class_is_found():
    mixin = type("FSDPModule", (), {"__module__": "torch.distributed.fsdp"})
    sharded = type("FSDPLinear", (mixin, nn.Linear), {})

    assert original_class(sharded) is nn.Linear


def test_a_class_with_a_mixin_of_that_name_from_elsewhere_is_the_users_own():
    mixin = type("FSDPModule", (), {})
    own = type("Mine", (mixin, nn.Linear), {})

    assert original_class(own) is own


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Linear", True),
        ("linear", False),
        ("torch.nn.Linear", True),
        ("torch.nn.modules.Linear", True),
        ("other.Linear", False),
        ("nn.Linear", False),
    ],
)
def test_a_type_name_is_exact(name, expected):
    assert is_type(nn.Linear, name) is expected
