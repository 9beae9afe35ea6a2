"""Reading YAML: the core schema of 1.2, places, and everything that is not one plain document."""

import math

import pytest
from messages.documents import EMPTY_FILE, found, given_twice, nested

from tersely import ConfigError
from tersely.document.reading.positions import Mark
from tersely.document.reading.yaml_text import read_yaml


def problems(text):
    return [str(problem) for problem in read_yaml(text).problems([])]


def refusal(text):
    with pytest.raises(ConfigError) as caught:
        read_yaml(text, source="recipe.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("on", "on"),
        ("~", None),
        ("null", None),
        ("12", 12),
        ("-7", -7),
        ("0o17", 15),
        ("0x1F", 31),
        ("010", 10),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2:4", "2:4"),
        ("1e-3", 0.001),
        ("1.", 1.0),
        (".5", 0.5),
        ("+1.5E2", 150.0),
        ("2024-01-01", "2024-01-01"),
        ("=", "="),
        ("'1'", "1"),
        ('"true"', "true"),
        ("!!str 1", "1"),
        ("!!int '3'", 3),
        ("!!float 3", 3.0),
        ("!!bool 'true'", True),
    ],
)
def test_a_scalar_means_what_yaml_1_2_says(text, value):
    data = read_yaml(f"key: {text}\n").data["key"]

    assert (type(data), data) == (type(value), value)


def test_a_key_without_a_value_holds_null():
    assert read_yaml("a:\nb: 1\n").data == {"a": None, "b": 1}


def test_every_key_and_value_has_its_place():
    document = read_yaml("a:\n  - b: 1\n    cc: [x, yy]\n")

    assert document.mark(("a",), "key") == Mark(1, 1)
    assert document.mark(("a", 0, "cc"), "key") == Mark(3, 5)
    assert document.mark(("a", 0, "cc")) == Mark(3, 9)
    assert document.mark(("a", 0, "cc", 1)) == Mark(3, 13)


def test_an_alias_repeats_its_anchor():
    document = read_yaml("a: &x [1, 2]\nb: *x\n")

    assert document.data == {"a": [1, 2], "b": [1, 2]}
    assert document.mark(("b", 0)) == Mark(1, 8)


def test_a_merge_key_adds_what_is_not_there():
    document = read_yaml("a: &x {p: 1, q: 2}\nb:\n  q: 3\n  <<: *x\n")

    assert document.data["b"] == {"q": 3, "p": 1}


def test_of_several_merged_mappings_the_first_wins():
    document = read_yaml("a: &x {p: 1}\nb: &y {p: 2, q: 3}\nc: {<<: [*x, *y]}\n")

    assert document.data["c"] == {"p": 1, "q": 3}


def test_only_a_mapping_can_be_merged():
    assert problems("a: &x 1\nb:\n  <<: *x\n") == [
        "1:4: b: the merge key << takes a mapping or a list of mappings "
        "(write <<: *name with an anchor &name on a mapping)"
    ]


def test_a_key_given_twice_is_reported_at_the_second_one():
    assert problems("a: 1\nb: 2\na: 3\n") == [
        f"3:1: a: the key 'a' {given_twice(1)} (keep one of them)"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1: a", "1:1: " + found("the key 1", "a string", "write '1' in quotes")),
        ("true: a", "1:1: " + found("the key true", "a string", "write 'true' in quotes")),
        ("~: a", "1:1: " + found("the key null", "a string", "write '~' in quotes")),
        ("? [a]\n: b", "1:3: " + found("a list as a key", "a string")),
        ("? {a: b}\n: c", "1:3: " + found("a mapping as a key", "a string")),
    ],
)
def test_a_key_is_a_string(text, message):
    assert problems(text) == [message]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("!foo 1", "the tag !foo has no meaning here, expected plain data (remove the tag)"),
        ("!!set {a}", "the tag !!set has no meaning here, expected plain data (remove the tag)"),
        ("!!binary aGk=", "the tag !!binary has no meaning here, expected plain data (remove the tag)"),
        ("!!python/name:os.system x", "the tag !!python/name:os.system has no meaning here, expected plain data (remove the tag)"),
        ("!foo [1]", "the tag !foo has no meaning here, expected plain data (remove the tag)"),
        ("!!int x", "the tag !!int does not fit 'x'"),
    ],
)  # fmt: skip
def test_a_tag_has_no_meaning(text, message):
    assert [line.removeprefix("1:4: ") for line in problems(f"a: {text}")] == [f"a: {message}"]


@pytest.mark.parametrize(
    ("text", "found"), [(".nan", "NaN"), (".inf", "infinity"), ("-.Inf", "-infinity")]
)
def test_a_number_is_finite(text, found):
    assert problems(f"a: {text}") == [f"1:4: a: found {found}, expected a finite number"]


def test_a_number_too_large_for_a_float_is_infinite():
    assert math.isinf(float("1e999"))
    assert problems("a: 1e999") == ["1:4: a: " + found("infinity", "a finite number")]


def test_an_integer_can_have_too_many_digits():
    assert problems(f"a: {'9' * 5000}") == [
        "1:4: a: the integer has 5000 digits, which is too many"
    ]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_an_empty_file_is_no_document(text):
    assert refusal(text) == f"recipe.yaml has 1 problem:\n  1:1: {EMPTY_FILE}"


def test_a_file_holds_one_document():
    assert refusal("a: 1\n---\nb: 2\n") == (
        "recipe.yaml has 1 problem:\n"
        "  2:1: a second document starts here, expected one document in a file "
        "(remove the line '---' or split the file)"
    )


def test_a_tab_cannot_indent():
    assert refusal("a:\n\tb: 1\n") == (
        "recipe.yaml has 1 problem:\n"
        "  2:1: found a tab where YAML expects spaces (indent with spaces)"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "a: [1, 2\nb: 3\n",
            "2:2: found ':' inside the list that begins on line 1, expected ',' or ']' "
            "(put a comma between the items, or close the list with ']')",
        ),
        ("b: 1\na: [1, 2\n", "2:4: the list that begins here is not closed (end it with ']')"),
        ("a: {x: 1\n", "1:4: the mapping that begins here is not closed (end it with '}')"),
        (
            "a: 'x\n",
            "1:4: the quote that begins here is not closed "
            "(write the same quote where the text ends)",
        ),
        (
            "a: b: c\n",
            "1:5: found ':' where no key is allowed (quote text that contains ': ', or check the "
            "indentation)",
        ),
        (
            "a:\n  b\n    c: 1\n",
            "3:6: found ':' where no key is allowed, since line 2 has no ':' after 'b' (write 'b:' "
            "there, or check the indentation)",
        ),
        (
            "a:\n  - b [x]\n\n    c: 1\n",
            "4:6: found ':' where no key is allowed, since line 2 has no ':' after 'b' (write 'b: "
            "[x]' there, or check the indentation)",
        ),
        (
            "a:\n b: x\n  c: 1\n",
            "3:4: found ':' where no key is allowed: the key on line 2 has a value already (give "
            "both lines the same indentation, or quote the text of line 2)",
        ),
        (
            "a:\n  b: x\n  c: d: 1\n",
            "3:7: found ':' where no key is allowed (quote text that contains ': ', or check the "
            "indentation)",
        ),
        (
            "a:\n  - x\n b: 2\n",
            "3:2: this line fits neither into the mapping that begins on line 1 nor after it "
            "(give lines that belong together the same indentation)",
        ),
        (
            "- a\nb: 1\n",
            "2:1: this line fits neither into the list that begins on line 1 nor after it "
            "(give lines that belong together the same indentation)",
        ),
        (
            "a: 1\nfoo\nb: 2\n",
            "2:1: found text without ': ' after it among the keys of a mapping "
            "(write 'key: value', or check the indentation)",
        ),
        (
            "a: *nobody\n",
            "1:4: the alias *nobody has no anchor &nobody above it "
            "(put text that begins with '*' in quotes)",
        ),
        (
            "a: [*.conv]\n",
            "1:6: text that begins with '*' or '&' refers to other parts of the file "
            "(put a pattern in quotes, as in '.*conv')",
        ),
        (
            'a: "\\d+"\n',
            "1:6: a backslash before 'd' has no meaning in double quotes "
            "(write patterns in single quotes, as in '\\d+')",
        ),
        ("a: @x\n", "1:4: text cannot begin with '@' in YAML (put it in quotes)"),
        (
            "a: - b\n",
            "1:4: found '- ' where no list item is allowed (begin the item on a line of its own)",
        ),
        ("a: ]\n", "1:4: found ']' where a value is expected (put text in quotes)"),
        (
            "a: >x y\n",
            "1:5: text that begins with '|' or '>' starts a block of lines (put it in quotes)",
        ),
    ],
)
def test_text_that_is_not_yaml_is_explained_without_the_parsers_words(text, problem):
    assert refusal(text) == f"recipe.yaml has 1 problem:\n  {problem}"


def test_a_long_gap_above_a_misplaced_key_takes_no_time_to_look_through():
    assert refusal(f"a{' ' * 20_000}b:c\n  d: 1\n") == (
        "recipe.yaml has 1 problem:\n  2:4: found ':' where no key is allowed "
        "(quote text that contains ': ', or check the indentation)"
    )


@pytest.mark.parametrize(
    ("text", "place"), [("a: {b: 1, c:0.5}", "1:11"), ("a: {c:0.5, b: 1}", "1:5")]
)
def test_a_key_that_lacks_a_space_after_its_colon_has_no_value(text, place):
    assert problems(text) == [
        f"{place}: a['c:0.5']: the key 'c:0.5' has no value (write a space after the colon: c: 0.5)"
    ]


@pytest.mark.parametrize("text", ["{a: {'c:0.5': , b: }}", "{a: {x y:z}, b: {http://c: 1}}"])
def test_a_colon_in_other_keys_is_text(text):
    assert problems(text) == []


def test_a_control_character_is_not_allowed():
    assert refusal("a: 1\nb: x\x07y\n") == (
        "recipe.yaml has 1 problem:\n"
        "  2:5: found the character U+0007, which YAML does not allow "
        '(remove it, or write it as "\\u0007" in double quotes)'
    )


def test_an_alias_inside_its_own_anchor_never_ends():
    assert refusal("a: &x [1, *x]\n") == (
        "recipe.yaml has 1 problem:\n"
        "  1:4: an alias is inside its own anchor, so the data would never end"
    )


def test_aliases_that_multiply_are_stopped():
    text = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
    )

    assert refusal(text) == (
        "recipe.yaml has 1 problem:\n"
        "  1:16: more than 100000 values only repeat others "
        "(aliases of aliases grow fast: write the values out)"
    )


def test_a_document_can_be_too_deep():
    assert refusal(f"a: {'[' * 150}{']' * 150}\n") == (
        f"recipe.yaml has 1 problem:\n  1:104: {nested('more than 100 levels deep')}"
    )


def test_a_document_can_be_too_deep_for_the_parser():
    assert refusal("[" * 50_000) == f"recipe.yaml has 1 problem:\n  {nested('too deeply')}"
