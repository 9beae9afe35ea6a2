"""Output targets: tensors, and containers that keep their type (rule T1)."""

import collections
import dataclasses
from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch
from messages.planning import ADDRESS_A_TENSOR, SEVERAL_TENSORS, WRITE_THE_KEY
from torch import Tensor, nn

import tersely

ROW = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
HALF = [[0.0, 2.0, 0.0, 4.0]]
WHOLE = [[1.0, 2.0, 3.0, 4.0]]
MASKED = torch.tensor([0.0, 1.0, 0.0, 1.0])


class Pair(NamedTuple):
    first: object
    second: object


class Listing(list):
    """A list of its own type."""


class ModelOutput(OrderedDict):
    """What transformers' models return: a dictionary whose keys are fields that are not None."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                super().__setitem__(field.name, value)

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def __getitem__(self, key):
        return dict(self.items())[key] if isinstance(key, str) else tuple(self.values())[key]


@dataclasses.dataclass
class Sequences(ModelOutput):
    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden: Tensor | None = None


class Returning(nn.Module):
    """Returns what it was made with."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self):
        return self.value


def masked(value, target):
    """A module that returns a value in which elements 0 and 2 of a target are masked."""
    model = Returning(value)
    model.register_buffer("source", MASKED.clone())
    align = {"align": {"target_name": "source", "dims": [0]}}
    entry = {
        "op_names": [""],
        "target_names": ["source", target],
        "target_settings": {"source": {"sparse_threshold": 0.5}, target: align},
    }
    tersely.prune(model, [entry], algorithm="toy")
    return model


def message(value, target):
    with pytest.raises(tersely.SessionError) as caught:
        masked(value, target)()
    return str(caught.value)


@pytest.mark.parametrize("target", ["_output_", "_output_0"])
def test_a_tensor_is_masked(target):
    assert masked(ROW, target)().tolist() == HALF


@pytest.mark.parametrize("container", [tuple, list, Listing])
def test_a_sequence_keeps_its_type_and_its_other_elements(container):
    value = container([ROW, "text", ROW])
    output = masked(value, "_output_2")()
    assert type(output) is container
    assert output[0] is ROW
    assert output[1] == "text"
    assert output[2].tolist() == HALF
    assert value[2] is ROW


@pytest.mark.parametrize("target", ["_output_", "_output_0"])
def test_the_output_of_a_sequence_is_its_first_element(target):
    first, second = masked((ROW, ROW), target)()
    assert (first.tolist(), second.tolist()) == (HALF, WHOLE)


@pytest.mark.parametrize("target", ["_output_1", "_output_second"])
def test_a_named_tuple_keeps_its_type_and_answers_to_its_names(target):
    output = masked(Pair("text", ROW), target)()
    assert type(output) is Pair
    assert output.first == "text"
    assert output.second.tolist() == HALF


def test_what_torch_returns_from_max_keeps_its_names():
    output = masked(torch.max(ROW.unsqueeze(0), 0), "_output_0")()
    assert isinstance(output, torch.return_types.max)
    assert output.values.tolist() == HALF
    assert output.indices.tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("container", [dict, OrderedDict])
def test_a_mapping_keeps_its_type_its_order_and_its_other_values(container):
    value = container(a=ROW, b=ROW, c=None)
    output = masked(value, "_output_b")()
    assert type(output) is container
    assert list(output) == ["a", "b", "c"]
    assert output["a"] is ROW
    assert output["b"].tolist() == HALF
    assert value["b"] is ROW


def test_a_defaultdict_keeps_its_factory():
    value = collections.defaultdict(list, a=ROW)
    output = masked(value, "_output_a")()
    assert output["a"].tolist() == HALF
    assert output["new"] == []


def test_an_ordered_dict_with_numbers_as_keys_keeps_them():
    output = masked(OrderedDict([(7, ROW), (3, ROW)]), "_output_3")()
    assert output[7].tolist() == WHOLE
    assert output[3].tolist() == HALF
    assert list(output) == [7, 3]


def test_a_key_that_reads_as_a_number_is_preferred_to_a_position():
    output = masked({"a": ROW, "0": ROW}, "_output_0")()
    assert output["a"].tolist() == WHOLE
    assert output["0"].tolist() == HALF


@pytest.mark.parametrize("target", ["_output_", "_output_0"])
def test_the_output_of_a_mapping_with_one_tensor_is_that_tensor(target):
    output = masked({"loss": None, "b": ROW, "states": (ROW,)}, target)()
    assert (output["b"].tolist(), output["states"][0].tolist()) == (HALF, WHOLE)


@pytest.mark.parametrize("target", ["_output_", "_output_0"])
def test_the_output_of_a_mapping_with_several_tensors_has_to_be_named(target):
    assert message({"a": ROW, "b": ROW}, target) == (
        f"output target {target!r} of a Returning {SEVERAL_TENSORS}: a, b; {WRITE_THE_KEY} "
        "_output_a"
    )


@dataclasses.dataclass
class Plain:
    hidden: torch.Tensor
    note: str = "kept"


def test_a_plain_dataclass_with_one_tensor_keeps_its_type_and_its_fields():
    value = Plain(ROW)
    output = masked(value, "_output_")()
    assert type(output) is Plain
    assert (output.hidden.tolist(), output.note, value.hidden is ROW) == (HALF, "kept", True)


def test_a_field_of_a_plain_dataclass_is_addressed_by_its_name():
    assert masked(Plain(ROW), "_output_hidden")().hidden.tolist() == HALF


def test_a_model_output_keeps_its_type_its_keys_and_its_attributes():
    value = Sequences(logits=ROW, hidden=ROW)
    output = masked(value, "_output_logits")()
    assert type(output) is Sequences
    assert output.logits.tolist() == output["logits"].tolist() == output[0].tolist() == HALF
    assert output.hidden is ROW
    assert output.loss is None
    assert list(output) == ["logits", "hidden"]
    assert value.logits is ROW


def test_an_element_that_is_none_stays_none():
    assert masked((ROW, None), "_output_1")()[1] is None


def test_a_container_inside_a_container_is_an_error_that_says_what_it_is():
    assert message((ROW, [ROW]), "_output_1") == (
        f"output target '_output_1' of a Returning {ADDRESS_A_TENSOR}"
    )


def test_an_index_beyond_the_end_is_an_error_that_says_how_many_there_are():
    assert message((ROW, ROW), "_output_2") == (
        "a Returning has no output '_output_2': it returned a tuple of 2"
    )


def test_an_unknown_key_is_an_error_that_lists_the_keys():
    assert message({"logits": ROW, "hidden": ROW}, "_output_loss") == (
        "a Returning has no output '_output_loss': it returned a dict with the keys logits, hidden"
    )


def test_a_field_that_a_model_output_left_out_is_an_error_that_lists_the_keys():
    assert message(Sequences(logits=ROW), "_output_hidden") == (
        "a Returning has no output '_output_hidden': it returned a Sequences with the keys logits"
    )


def test_an_element_of_a_single_tensor_is_an_error():
    assert message(ROW, "_output_1") == (
        "a Returning has no output '_output_1': it returned one Tensor"
    )


def test_an_output_that_is_no_container_is_an_error():
    assert message(3.5, "_output_") == (
        "a Returning has no output '_output_': it returned one float"
    )


def test_an_input_and_an_output_of_one_module_are_both_masked():
    model = nn.Sequential(nn.Identity())
    entry = {
        "op_names": ["0"],
        "target_names": ["_input_", "_output_"],
        "target_settings": {
            "_input_": {"sparse_threshold": 1.5},
            "_output_": {"sparse_threshold": 2.5},
        },
    }
    tersely.prune(model, [entry], algorithm="toy", data=[ROW])
    assert model(ROW).tolist() == [[0.0, 0.0, 3.0, 4.0]]
