"""Reading Python data: what counts as plain, and what to write for what does not."""

import enum
import fractions
import types
from pathlib import Path

import pytest
from messages.documents import found

from tersely import ConfigError
from tersely.document.reading.python_data import read_python


class Linear:
    class Item:
        def item(self):
            return 0.5


class Share(float):
    pass


class Size(enum.IntEnum):
    SMALL = 4


def problems(data):
    return [str(problem) for problem in read_python(data).problems([])]


def test_tuples_and_mappings_become_lists_and_dicts():
    data = read_python(types.MappingProxyType({"a": ("b", ["c"])})).data

    assert data == {"a": ["b", ["c"]]}
    assert type(data) is dict


def test_subclasses_of_plain_types_become_plain():
    data = read_python([Share(0.5), Size.SMALL, True]).data

    assert [type(value) for value in data] == [float, int, bool]


def test_the_data_is_copied():
    original = {"a": [1]}
    copy = read_python(original).data
    copy["a"].append(2)

    assert original == {"a": [1]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Linear, found("the class Linear", "plain data", "write its name, 'Linear'")),
        ({"Conv2d"}, found("an object of the class set", "plain data", "write a list")),
        (Path("a/b"), f"found an object of the class {type(Path()).__name__}, expected plain data (write {str(Path('a/b'))!r})"),
        (len, found("an object of the class builtin_function_or_method", "plain data", "write its name, 'len'")),
        (Linear.Item(), found("an object of the class Linear.Item", "plain data", "write the number itself, which .item() returns")),
        (fractions.Fraction(1, 2), found("an object of the class Fraction", "plain data")),
        (float("nan"), found("NaN", "a finite number")),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_what_to_write(value, message):
    assert problems({"a": [value]}) == [f"a[0]: {message}"]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (1, found("the key 1", "a string", "write '1'")),
        (None, found("the key None", "a string")),
        (Linear, found("the key the class Linear", "a string", "write its name, 'Linear'")),
    ],
)
def test_a_key_is_a_string(key, message):
    assert problems({"a": {key: 1}}) == [f"a: {message}"]


def test_data_that_contains_itself_is_refused():
    data = []
    data.append(data)

    with pytest.raises(ConfigError, match="the data contains itself, so it would never end"):
        read_python(data)


def test_data_that_repeats_is_fine():
    part = ["a"]

    assert read_python([part, part]).data == [["a"], ["a"]]
