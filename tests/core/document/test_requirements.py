"""``requires``: well formed, installed, and of a version that fits."""

from importlib import metadata

import pytest

STAGE = "pruning: {algorithm: level, config_list: [{op_types: [a]}]}\n"


@pytest.mark.parametrize("text", ["attrs", "attrs>=1", "ATTRS", "nosuch; python_version < '3'"])
def test_a_requirement_that_is_met_is_fine(lines, text):
    assert lines(f'{STAGE}requires: ["{text}"]') == []


def test_a_distribution_that_is_missing_is_named_with_the_command(lines):
    assert lines(f"{STAGE}requires: [attrs, 'tersely-nosuch>=1']") == [
        "2:19: requires[1]: tersely-nosuch is required and not installed "
        "(pip install 'tersely-nosuch>=1')"
    ]


def test_a_version_that_does_not_fit_is_shown_with_the_one_that_is_there(lines):
    version = metadata.version("attrs")

    assert lines(f"{STAGE}requires: ['attrs<1']") == [
        f"2:12: requires[0]: attrs {version} is installed, expected <1 (pip install 'attrs<1')"
    ]


def test_what_is_no_requirement_is_refused(lines):
    (line,) = lines(f"{STAGE}requires: ['>=1']")

    assert line.startswith("2:12: requires[0]: '>=1' is not a requirement: ")
    assert line.endswith("(write a name and a version, as in 'tersely-pruning>=0.1')")


def test_requirements_of_a_recipe_inside_a_job_are_checked(lines):
    text = (
        "model: a:b\noutput: out\nrecipe:\n  requires: [tersely-nosuch]\n"
        "  pruning: {algorithm: level, config_list: [{op_types: [a]}]}\n"
    )

    assert lines(text, "job") == [
        "4:14: recipe.requires[0]: tersely-nosuch is required and not installed "
        "(pip install 'tersely-nosuch')"
    ]
