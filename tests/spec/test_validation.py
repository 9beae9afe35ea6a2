"""Family validation: documents and the paths of their problems. Imports no torch."""

import pytest

import tersely
from tersely.document.load import parse_config_list
from tersely.document.reading.source import read_document
from tersely.document.validate import check


class Linear:
    """Stands for a value that is not JSON data."""


def python_data(value):
    """Replace what a case file cannot write: numbers that are not finite, and other objects."""
    if isinstance(value, dict):
        if list(value) == ["$number"]:
            return float(value["$number"])
        if list(value) == ["$object"]:
            return Linear
        return {key: python_data(one) for key, one in value.items()}
    if isinstance(value, list):
        return [python_data(one) for one in value]
    return value


def problems_of(given):
    document = python_data(given["document"])
    try:
        if given["kind"] == "config_list":
            parse_config_list(given["method"], document)
        elif given["kind"] == "recipe":
            tersely.load_recipe(document)
        else:
            check(read_document(document), "job")
    except tersely.ConfigError as error:
        return error.problems
    return ()


@pytest.mark.spec("validation")
def test_validation(case):
    expect = case["expect"]
    problems = problems_of(case["given"])
    assert [problem.path for problem in problems] == expect["problems"], problems
    for path, words in expect.get("mentions", {}).items():
        texts = [str(problem) for problem in problems if problem.path == path]
        assert any(all(word in text for word in words) for text in texts), texts
