"""Family reading: YAML text, and the data or the problems in it. Imports no torch."""

import pytest

import tersely
from tersely.document.reading.source import read_document


def of_type(value):
    """Pair every scalar with its type, so that 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return {key: of_type(one) for key, one in value.items()}
    return (type(value), value)


@pytest.mark.spec("reading", expects="value")
def test_value(case, tmp_path):
    file = tmp_path / "document.yaml"
    file.write_text(case["given"]["yaml"], encoding="utf-8")
    assert of_type(read_document(file).data) == of_type(case["expect"]["value"])


@pytest.mark.spec("reading", expects="problems")
def test_problems(case, tmp_path):
    file = tmp_path / "document.yaml"
    file.write_text(case["given"]["yaml"], encoding="utf-8")
    with pytest.raises(tersely.ConfigError) as caught:
        tersely.load_recipe(file)
    found = [
        {"path": problem.path, "line": problem.line, "column": problem.column}
        for problem in caught.value.problems
    ]
    for expected in case["expect"]["problems"]:
        assert any(expected.items() <= one.items() for one in found), found
