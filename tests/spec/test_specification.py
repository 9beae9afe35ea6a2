"""The specification as a whole: every rule has a case, every case fits its schema. No torch."""

import json
import re

import pytest
from jsonschema import Draft202012Validator

from tersely.document.schemas.spec import spec_directory

CHAPTERS = {"R": 6, "S": 7, "T": 7, "G": 6, "B": 9, "Q": 7, "D": 5, "O": 5}


@pytest.fixture(scope="module")
def text():
    return (spec_directory() / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rules(text):
    return re.findall(r"^- \*\*([A-Z]\d\.\d+)\*\* ", text, flags=re.MULTILINE)


def all_cases(all_families):
    return [(family, case) for family, data in all_families.items() for case in data["cases"]]


def test_every_family_fits_the_schema_of_cases(all_families):
    schema = json.loads((spec_directory() / "case.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for data in all_families.values():
        errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(data)]
        assert errors == []


def test_a_case_with_an_unknown_key_does_not_fit_the_schema(all_families):
    schema = json.loads((spec_directory() / "case.schema.json").read_text(encoding="utf-8"))
    validator = Draft202012Validator(schema)
    for family, data in all_families.items():
        if family != "quantization":
            case = {**data["cases"][0], "given": {**data["cases"][0]["given"], "odd": 1}}
            assert not validator.is_valid({**data, "cases": [case]}), family


def test_a_file_is_named_after_its_family(all_families):
    assert {data["family"]: name for name, data in all_families.items()} == {
        name: name for name in all_families
    }


def test_names_are_unique_in_their_family(all_families):
    for family, data in all_families.items():
        names = [case["name"] for case in data["cases"]]
        assert len(names) == len(set(names)), family


def test_every_rule_is_stated_once_and_in_order(rules):
    order = {chapter: position for position, chapter in enumerate(CHAPTERS)}
    assert rules == sorted(
        set(rules), key=lambda rule: (order[rule[0]], *map(int, rule[1:].split(".")))
    )


def test_every_heading_has_rules_and_none_is_left_out(text, rules):
    headings = re.findall(r"^### ([A-Z]\d) ", text, flags=re.MULTILINE)
    assert headings == [
        f"{chapter}{number}"
        for chapter, count in CHAPTERS.items()
        for number in range(1, count + 1)
    ]
    assert {rule.partition(".")[0] for rule in rules} == set(headings)


def test_the_contents_list_the_rules_of_every_chapter(text):
    rows = re.findall(r"^\| \[\w+\]\(#\w+\) \| ([A-Z])1 - ([A-Z])(\d) \|", text, flags=re.MULTILINE)
    assert [(first, int(last)) for first, same, last in rows if first == same] == list(
        CHAPTERS.items()
    )


def test_every_rule_has_a_case(all_families, rules):
    cited = {rule for _, case in all_cases(all_families) for rule in case["rules"]}
    assert sorted(set(rules) - cited) == []


def test_every_case_cites_rules_that_exist(all_families, rules):
    for family, case in all_cases(all_families):
        assert set(case["rules"]) <= set(rules), (family, case["name"])


def test_every_case_is_run(all_families, is_run):
    for family, case in all_cases(all_families):
        assert is_run(family, case), (family, case["name"])


def test_every_key_of_the_schemas_stands_in_a_table(text):
    found = set()

    def collect(schema):
        if isinstance(schema, dict):
            found.update(schema.get("properties", {}))
            for value in schema.values():
                collect(value)
        elif isinstance(schema, list):
            for value in schema:
                collect(value)

    for name in ("config_list", "recipe"):
        path = spec_directory() / f"{name}.schema.json"
        collect(json.loads(path.read_text(encoding="utf-8")))
    rows = "".join(re.findall(r"^\|.*$", text, flags=re.MULTILINE))
    assert sorted(found - set(re.findall(r"`([a-z_]+)`", rows))) == []
