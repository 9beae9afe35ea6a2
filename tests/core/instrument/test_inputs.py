"""Input targets: however the caller passes the argument (rule T1)."""

import pytest
import torch
from messages.planning import ADDRESS_A_TENSOR, SEVERAL_TENSORS
from torch import nn

import tersely

DEFAULT = torch.tensor([1.0, 5.0, 2.0, 7.0])
MASKED = torch.tensor([0.0, 1.0, 0.0, 1.0])


class Plain(nn.Module):
    def forward(self, x, y=None, *, z=None):
        return x, y, z


class Defaults(nn.Module):
    def forward(self, x, y=DEFAULT, *, z=DEFAULT):
        return x, y, z


class Many(nn.Module):
    def forward(self, x, *args):
        return (x, *args)


class Keywords(nn.Module):
    def forward(self, **kwargs):
        return dict(kwargs)


class FlagFirst(nn.Module):
    def forward(self, flag, x=None, y=None):
        return x, y


def masked(model, target):
    """Mask elements 0 and 2 of an input, by an align that follows a buffer."""
    model.register_buffer("source", MASKED.clone())
    align = {"align": {"target_name": "source", "dims": [0]}}
    entry = {
        "op_names": [""],
        "target_names": ["source", target],
        "target_settings": {"source": {"sparse_threshold": 0.5}, target: align},
    }
    return tersely.prune(model, [entry], algorithm="toy")


@pytest.fixture
def row():
    return torch.tensor([[1.0, 2.0, 3.0, 4.0]])


HALF = [[0.0, 2.0, 0.0, 4.0]]
WHOLE = [[1.0, 2.0, 3.0, 4.0]]


@pytest.mark.parametrize("target", ["_input_", "_input_0", "_input_x"])
@pytest.mark.parametrize("by", ["position", "keyword"])
def test_an_argument_is_masked_however_it_is_addressed_and_passed(row, target, by):
    model = Plain()
    masked(model, target)
    output = model(row) if by == "position" else model(x=row)
    assert output[0].tolist() == HALF


@pytest.mark.parametrize("target", ["_input_1", "_input_y"])
@pytest.mark.parametrize("by", ["position", "keyword"])
def test_the_second_argument_is_masked_and_the_first_is_not(row, target, by):
    model = Plain()
    masked(model, target)
    output = model(row, row) if by == "position" else model(y=row, x=row)
    assert output[0].tolist() == WHOLE
    assert output[1].tolist() == HALF


def test_a_keyword_only_argument_is_masked_by_its_name(row):
    model = Plain()
    masked(model, "_input_z")
    x, y, z = model(row, row, z=row)
    assert (x.tolist(), y.tolist(), z.tolist()) == (WHOLE, WHOLE, HALF)


@pytest.mark.parametrize("target", ["_input_y", "_input_1"])
def test_an_optional_argument_that_is_left_out_stays_out(row, target):
    model = Plain()
    masked(model, target)
    assert model(row)[1] is None
    assert model(row, None)[1] is None
    assert model(row, y=None)[1] is None


@pytest.mark.parametrize(("target", "place"), [("_input_y", 1), ("_input_1", 1), ("_input_z", 2)])
def test_a_default_that_is_a_tensor_is_masked_and_not_changed(row, target, place):
    model = Defaults()
    masked(model, target)
    assert model(row)[place].tolist() == [0.0, 5.0, 0.0, 7.0]
    assert DEFAULT.tolist() == [1.0, 5.0, 2.0, 7.0]


def test_further_positional_arguments_are_addressed_by_their_index(row):
    model = Many()
    masked(model, "_input_2")
    output = model(row, row, row, row)
    assert [one.tolist() for one in output] == [WHOLE, WHOLE, HALF, WHOLE]


def test_a_further_positional_argument_that_is_not_passed_does_not_matter(row):
    model = Many()
    masked(model, "_input_2")
    assert [one.tolist() for one in model(row, row)] == [WHOLE, WHOLE]


def test_further_keyword_arguments_are_addressed_by_their_name(row):
    model = Keywords()
    masked(model, "_input_b")
    output = model(a=row, b=row)
    assert {name: one.tolist() for name, one in output.items()} == {"a": WHOLE, "b": HALF}


@pytest.mark.parametrize("by", ["position", "keyword", "both"])
def test_the_input_is_the_first_argument_that_is_a_tensor(row, by):
    model = FlagFirst()
    masked(model, "_input_")
    x, y = {
        "position": lambda: model(True, row, row),
        "keyword": lambda: model(y=row, x=row, flag=True),
        "both": lambda: model(True, y=row, x=row),
    }[by]()
    assert (x.tolist(), y.tolist()) == (HALF, WHOLE)


def test_an_input_among_keywords_only_is_found(row):
    model = Keywords()
    masked(model, "_input_")
    assert model(a=row)["a"].tolist() == HALF


def test_the_callers_tensor_list_and_mapping_are_not_changed(row):
    model = Plain()
    masked(model, "_input_")
    arguments, keywords = [row], {"z": row}
    model(*arguments, **keywords)
    assert row.tolist() == WHOLE
    assert arguments[0] is row
    assert keywords["z"] is row


def test_an_input_that_is_no_tensor_is_an_error_that_says_what_it_is():
    model = Plain()
    masked(model, "_input_x")
    with pytest.raises(tersely.SessionError) as caught:
        model([1, 2])
    assert str(caught.value) == f"input target '_input_x' of a Plain {ADDRESS_A_TENSOR}"


def test_a_missing_argument_is_pythons_own_error():
    model = Plain()
    masked(model, "_input_x")
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        model()


def test_two_inputs_have_masks_of_their_own(row):
    model = Plain()
    masked_y = {"sparse_threshold": 3.5}
    entry = {
        "op_names": [""],
        "target_names": ["_input_x", "_input_y"],
        "target_settings": {"_input_x": {"sparse_threshold": 1.5}, "_input_y": masked_y},
    }
    tersely.prune(model, [entry], algorithm="toy", data=[(row, row)])
    x, y, _ = model(row, row)
    assert x.tolist() == [[0.0, 2.0, 3.0, 4.0]]
    assert y.tolist() == [[0.0, 0.0, 0.0, 4.0]]


def test_the_input_of_a_mapping_with_one_tensor_is_that_tensor(row):
    batch = {"name": "a", "values": row}
    model = Plain()
    masked(model, "_input_")
    found, _, _ = model(batch)
    assert (found["values"].tolist(), found["name"], batch["values"] is row) == (HALF, "a", True)


def test_the_input_of_a_mapping_with_several_tensors_is_an_error_that_lists_them(row):
    model = Plain()
    masked(model, "_input_")
    with pytest.raises(tersely.SessionError) as caught:
        model({"left": row, "right": row})
    assert str(caught.value) == (
        f"input target '_input_' of a Plain {SEVERAL_TENSORS}: left, right; target the input "
        "of a module that is called with a tensor"
    )


class _Joined(nn.Module):
    def forward(self, parts):
        return torch.cat(list(parts), 1)


@pytest.mark.parametrize("by", ["position", "keyword"])
@pytest.mark.parametrize("kind", [list, tuple])
def test_an_input_whose_tensors_are_inside_a_sequence_is_an_error_that_says_how_to_address_one(
    row, kind, by
):
    model = _Joined()
    masked(model, "_input_")
    parts = kind([row, row])
    with pytest.raises(tersely.SessionError, match=r"as in _input_parts\.0, or leave"):
        model(parts) if by == "position" else model(parts=parts)
    model = _Joined()
    masked(model, "_input_parts.0")
    assert model(parts).tolist() == [HALF[0] + WHOLE[0]]


@pytest.mark.parametrize("by", ["position", "keyword"])
def test_the_address_that_is_said_is_that_of_the_argument_that_holds_tensors(row, by):
    model = FlagFirst()
    masked(model, "_input_")
    with pytest.raises(tersely.SessionError, match=r"as in _input_y\.1, or leave"):
        model("flag", None, ("no", row)) if by == "position" else model(1, y=("no", row))
    model = FlagFirst()
    masked(model, "_input_y.1")
    assert model("flag", None, ("no", row))[1][1].tolist() == HALF


def test_a_packed_sequence_is_an_error_and_its_data_can_be_a_target():
    packed = nn.utils.rnn.pack_sequence([torch.ones(3, 4), torch.ones(2, 4)])
    model = nn.GRU(4, 2)
    masked(model, "_input_")
    with pytest.raises(tersely.SessionError, match="a PackedSequence that holds some"):
        model(packed)
    model = nn.GRU(4, 2)
    masked(model, "_input_input.data")
    output, _ = model(packed)
    assert isinstance(output, nn.utils.rnn.PackedSequence)
    plain = nn.GRU(4, 2)
    plain.load_state_dict({name: value.detach() for name, value in model.named_parameters()})
    expected, _ = plain(packed._replace(data=packed.data * MASKED))
    torch.testing.assert_close(output.data, expected.data)
