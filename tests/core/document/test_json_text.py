"""Reading JSON: strict, and with the same places and problems as YAML."""

import pytest
from messages.documents import EMPTY_FILE, KEY_IN_QUOTES, found, given_twice, nested

from tersely import ConfigError
from tersely.document.reading.json_text import read_json
from tersely.document.reading.positions import Mark


def refusal(text):
    with pytest.raises(ConfigError) as caught:
        read_json(text, source="recipe.json")
    return str(caught.value)


def test_every_key_and_value_has_its_place():
    document = read_json('{\n\t"a": [1,\n   {"b\\n": "é"}]\n}\n')

    assert document.data == {"a": [1, {"b\n": "é"}]}
    assert document.mark(("a",), "key") == Mark(2, 2)
    assert document.mark(("a", 0)) == Mark(2, 8)
    assert document.mark(("a", 1, "b\n"), "key") == Mark(3, 5)
    assert document.mark(("a", 1, "b\n")) == Mark(3, 12)


@pytest.mark.parametrize("text", ["{}", "[]", "1", '"a"', "null", " [ ] ", '{"a": {}}'])
def test_any_json_value_is_read(text):
    assert read_json(text).findings == ()


def test_a_key_given_twice_is_reported_at_the_second_one():
    document = read_json('{"a": 1,\n "a": {"b": 2}}')

    assert document.data == {"a": 1}
    assert [str(problem) for problem in document.problems([])] == [
        f"2:2: a: the key 'a' {given_twice(1)} (keep one of them)"
    ]
    assert document.mark(("a",)) == Mark(1, 7)  # of the value that counts


def test_a_number_is_finite():
    document = read_json('{"a": NaN, "b": -Infinity, "c": 1e999}')

    assert [str(problem) for problem in document.problems([])] == [
        "1:7: a: " + found("NaN", "a finite number"),
        "1:17: b: " + found("-infinity", "a finite number"),
        "1:33: c: " + found("infinity", "a finite number"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"1:1: {EMPTY_FILE}"),
        ("{'a': 1}", f"1:2: not JSON: expecting {KEY_IN_QUOTES} (put keys in double quotes, without a comma after the last one)"),
        ('{"a" 1}', "1:6: not JSON: expecting ':' delimiter"),
        ('{"a": 1} {}', "1:10: not JSON: extra data"),
        ('{"a":\n tru}', "2:2: not JSON: expecting value"),
        ('"a\nb"', "1:3: not JSON: invalid control character at"),
        ("[" * 100_000, nested("too deeply")),
        ("9" * 5000, "an integer has too many digits"),
    ],
)  # fmt: skip
def test_what_is_not_json_is_refused(text, message):
    assert refusal(text) == f"recipe.json has 1 problem:\n  {message}"
