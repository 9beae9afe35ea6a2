"""What a document costs is bounded: repetition, numbers, problems, and entries that are alike."""

import random

import pytest

from tersely import ConfigError, load_recipe, migrate
from tersely.document.messages.translate import translate
from tersely.document.reading.json_text import read_json
from tersely.document.reading.python_data import read_python
from tersely.document.reading.yaml_text import read_yaml
from tersely.document.schemas.long_lists import mismatches_of
from tersely.document.schemas.mismatch import mismatch_of
from tersely.document.schemas.schema import composed_schema, validator

LEVEL = {"algorithm": "level", "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5}]}


def refusal(act, *arguments):
    with pytest.raises(ConfigError) as caught:
        act(*arguments)
    return str(caught.value)


def bomb(first, levels, *, width=9):
    lines = [f"x0: &x0 {first}"]
    for level in range(1, levels + 1):
        lines.append(f"x{level}: &x{level} {{<<: [{', '.join([f'*x{level - 1}'] * width)}]}}")
    return "\n".join(lines)


@pytest.mark.parametrize("first", ["{a: 1, b: 2}", "{}", "{a: {b: 1}}"])
def test_merges_of_merges_are_refused_once_they_grow(first):
    assert "more than 100000 values only repeat others" in refusal(read_yaml, bomb(first, 9))


def test_two_levels_of_merges_are_fine():
    data = read_yaml(bomb("{a: 1, b: 2}", 2)).data

    assert data["x2"] == {"a": 1, "b": 2}


def test_many_aliases_of_a_long_string_are_refused():
    text = f"a: [&a {'x' * 100_000}{', *a' * 101}]"

    assert "strings that only repeat others have more than 10000000 char" in refusal(
        read_yaml, text
    )


def test_many_aliases_of_a_short_string_are_fine():
    assert read_yaml(f"a: [&a fc{', *a' * 50_000}]").data["a"] == ["fc"] * 50_001


def test_a_long_string_that_python_data_repeats_is_refused():
    assert "strings that only repeat others" in refusal(read_python, ["x" * 100_000] * 102)


@pytest.mark.parametrize(
    "document",
    [
        read_yaml(f"a: {10**400}"),
        read_yaml(f"a: 0x1{'0' * 3600}"),
        read_yaml(f"a: 0o1{'0' * 5000}"),
        read_yaml(f"a: -{10**400}"),
        read_json(f'{{"a": {10**400}}}'),
        read_python({"a": 10**5000}),
    ],
    ids=["decimal", "hexadecimal", "octal", "negative", "json", "python"],
)
def test_an_integer_beyond_all_use_is_a_mistake_at_its_place(document):
    (problem,) = document.problems([])

    assert problem.path == "a"
    assert problem.message == "found a very large integer, expected at most 307 digits"


def test_a_key_that_is_a_very_large_integer_is_a_mistake():
    (problem,) = read_python({10**5000: 1}).problems([])

    assert problem.message == "found the key a very large integer, expected a string"


def test_an_error_shows_fifty_problems_and_holds_all():
    entries = [{"op_types": ["Linear"], "sparsty": index} for index in range(1000)]
    with pytest.raises(ConfigError) as caught:
        load_recipe({"pruning": {"algorithm": "level", "config_list": entries}})

    lines = str(caught.value).splitlines()
    assert len(caught.value.problems) == 1000
    assert len(lines) == 52
    assert lines[-1] == "  ... and 950 more, listed in problems"


def test_a_problem_of_any_length_is_cut_in_the_error():
    assert len(refusal(load_recipe, {"x" * 1_000_000: 1, "pruning": LEVEL})) < 1500


@pytest.mark.parametrize(
    ("requirement", "reason"),
    [
        ("nope; implementation_version ~= 'x'", "cannot be decided"),
        ("nope; " + "(" * 3000 + "python_version<'3'" + ")" * 3000, "is not a requirement"),
        ("a" * 1001, "it has more than 1000 characters"),
        ("a[" + "b," * 400 + "]", "is not a requirement"),
    ],
)
def test_a_requirement_that_packaging_gives_up_on_is_refused(requirement, reason):
    assert reason in refusal(load_recipe, {"pruning": LEVEL, "requires": [requirement]})


@pytest.mark.parametrize("bad", [0.5, [0.5], [["a"]], {"a": 1}, "conv", [None], True])
@pytest.mark.parametrize("key", ["op_names", "op_types", "op_names_re", "exclude_op_names"])
def test_selectors_of_other_types_are_not_migrated(key, bad):
    said = refusal(migrate, [{key: bad, "sparsity": 0.5}, {key: bad, "sparsity": 0.5}])

    assert f"[1].{key}: found " in said
    assert said.count(", expected a list of strings") == 2


def test_a_migrated_list_of_many_layers_keeps_its_order_where_none_overlap():
    old = [{"op_names": [f"layer{index}"], "sparsity": 0.5} for index in range(1001)]

    assert [entry["op_names"] for entry in migrate(old)] == [entry["op_names"] for entry in old]


def test_a_migrated_list_of_many_overlapping_entries_runs_backwards():
    old = [{"op_types": ["Linear"], "sparsity": index / 2000} for index in range(1001)]

    assert [entry["sparse_ratio"] for entry in migrate(old)] == [
        index / 2000 for index in reversed(range(1001))
    ]


def findings_of(data, kind, *, by_value_classes):
    root = composed_schema(kind)
    one_by_one = map(mismatch_of, validator(kind).iter_errors(data))
    found = mismatches_of(data, kind) if by_value_classes else one_by_one
    findings = [finding for mismatch in found for finding in translate(mismatch, root)]
    return sorted(map(repr, dict.fromkeys(findings)))


ODD = [
    {"op_names": ["a", 7]},
    {"op_names": [7, "a"], "sparse_ratio": 0.5},
    {"op_names": []},
    {"op_types": [""], "sparse_ratio": 0.5},
    {"sparse_ratio": 2},
    {"sparse_ratio": True, "op_names": ["a"]},
    {"sparse_ratio": 1, "op_names": ["a"]},
    {"op_names": ["b"], "granularity": [1, "x"]},
    {"op_names": "c"},
    {"op_names": ["d"], "exclude_op_types": [None]},
    {"sparsty": 0.5, "op_names": ["e"]},
    {"op_names": ["f"], "target_settings": {"weight": {"sparse_ratio": -1}}},
    {"op_names": ["g"], "target_settings": {"bias": {"sparse_ratio": 3, "align": {"x": 1}}}},
    {"op_names": ["g"], "target_settings": {"": {"sparse_ratio": 3, "sparsty": {"x": 1}}}},
    {"op_namse": ["h"], "sparse_ratio": 0.25, "exclude_op_types": ["h", 1]},
    {"op_namess": ["i"], "sparse_ratio": 0.75, "exclude_op_types": ["h", 1]},
    {"op_names": ["j"], "granularity": "out_chanel", "sparse_ratio": "0.5"},
    {"op_names": ["k"], "granularity": "per_chanel", "sparse_ratio": "50%"},
    {"op_names": ["l"], "granularity": {"block": {"value": [0, "x"]}}, "align": {"dims": [0]}},
    {"op_names": ["m"], "granularity": {"block": {"value": ["y", 0]}}, "align": {"dims": [1]}},
    {"op_names": ["n"], "granularity": {"blok": {"value": [1]}}, "global_group_id": 1.5},
    {"op_names": ["o"], "granularity": {"blck": {"value": [2]}}, "global_group_id": 2.5},
    {"op_names": ["p"], "sparse_threshold": 1e300, "sparse_ratio": 0.1, "x": 1, "y": 2},
    {"op_names": ["q"], "sparse_threshold": -1, "sparse_ratio": 0.2, "y": 1, "x": 2},
    7,
    None,
    [],
]


@pytest.mark.parametrize("seed", range(5))
def test_entries_that_are_alike_are_judged_as_one_by_one(seed):
    chosen = random.Random(seed)
    entries = [chosen.choice(ODD) for _ in range(200)]
    recipe = {
        "pruning": [{"algorithm": "level", "config_list": entries}, LEVEL],
        "stages": [{"until": 5, "pruning": {"algorithm": "level", "config_list": entries[:120]}}],
    }
    for data, kind in ((entries, "pruning"), (recipe, "recipe"), ({"recipe": recipe}, "job")):
        whole = findings_of(data, kind, by_value_classes=False)

        assert findings_of(data, kind, by_value_classes=True) == whole
        assert len(whole) > 100
