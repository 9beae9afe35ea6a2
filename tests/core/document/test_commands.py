"""The command line around documents: validate, schema, migrate, and what they share."""

import json

import pytest
from messages.documents import (
    NO_SUCH_FILE,
    NOT_IN_CONFIG_LISTS,
    RECIPE_FILE,
    RELATIVE_TO_JOB,
    SCHEDULE_INSTEAD,
    STRINGS_EXPECTED,
    found,
)

from tersely import __version__
from tersely.cli import main as main_module
from tersely.cli.main import COMMANDS, main
from tersely.document.schemas.schema import schema

GOOD = "pruning: {algorithm: level, config_list: [{op_types: [Linear]}]}\n"
BAD = "pruning:\n  algorithm: level\n  config_list:\n  - op_types: Linear\n    sparse_ratio: 50\n"


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Runs the command line in a folder of its own: exit status, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run_command(*arguments):
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return caught.value.code, output.out, output.err

    return run_command


@pytest.fixture
def write(tmp_path):
    def write_file(name, text):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        return name

    return write_file


def test_the_version_is_shown(run):
    assert run("--version") == (0, f"tersely {__version__}\n", "")


def test_help_lists_every_command_without_importing_any(run, monkeypatch):
    def refuse(name):
        raise AssertionError(f"{name} was imported")

    monkeypatch.setattr(main_module, "import_module", refuse)
    status, output, _ = run("--help")

    assert status == 0
    assert [line.split()[0] for line in output.split("Commands:")[1].strip().splitlines()] == list(
        COMMANDS
    )


def test_an_unknown_command_is_a_usage_error(run):
    status, _, errors = run("valdate")

    assert status == 2
    assert "No such command 'valdate'" in errors


def test_an_interrupt_exits_with_130(run, write, monkeypatch):
    def interrupt(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "import_module", interrupt)

    assert run("validate", "a")[0] == 130


def test_valid_files_are_named_with_their_kind(run, write):
    write("recipe.yaml", GOOD)
    write("list.json", '[{"op_types": ["Linear"], "quant_dtype": "int8"}]')
    write("job.yaml", "model: a:b\noutput: out\nrecipe: recipe.yaml\n")

    assert run("validate", "recipe.yaml", "list.json", "job.yaml") == (
        0,
        "recipe.yaml: valid (recipe)\n"
        "list.json: valid (quantization config list)\n"
        "job.yaml: valid (job)\n"
        "recipe.yaml: valid (recipe)\n",
        "",
    )


def test_problems_are_printed_with_file_line_and_column(run, write):
    write("good.yaml", GOOD)
    write("bad.yaml", BAD)

    assert run("validate", "good.yaml", "bad.yaml") == (
        1,
        (
            "good.yaml: valid (recipe)\n"
            f"bad.yaml:4:15: pruning.config_list[0].op_types: found 'Linear', {STRINGS_EXPECTED} "
            "(write a list: [Linear])\n"
            "    4 |   - op_types: Linear\n"
            "      |               ^^^^^^\n"
            "bad.yaml:5:19: pruning.config_list[0].sparse_ratio: found 50, expected a number from "
            "0 to 1 (for 50 percent write 0.5)\n"
            "    5 |     sparse_ratio: 50\n"
            "      |                   ^^\n"
            "2 problems in 1 of 2 files\n"
        ),
        "",
    )


def test_what_is_wrong_in_the_writing_is_printed_once(run, write):
    write("job.yaml", "model: a:b\noutput: out\noutput: other\nrecipe: {}\n")

    status, printed, errors = run("validate", "job.yaml")

    assert status == 1
    assert printed.count("the key 'output' is given twice") == 1
    assert errors == ""


def test_problems_are_printed_for_programs(run, write):
    write("bad.yaml", "pruning: 3\n")
    status, output, _ = run("validate", "bad.yaml", "--format", "json")

    assert status == 1
    assert json.loads(output) == {
        "valid": False,
        "files": [
            {
                "file": "bad.yaml",
                "kind": "recipe",
                "problems": [
                    {
                        "path": "pruning",
                        "message": found("3", "a pruning stage or a list of them"),
                        "hint": None,
                        "line": 1,
                        "column": 10,
                        "fix": None,
                    }
                ],
            }
        ],
    }


def test_problems_are_printed_for_github(run, write):
    write("a,b.yaml", "pruning:\n  algorithm: level\n  config_list: [{op_types: ['100%']}]\nx: 1\n")

    assert run("validate", "a,b.yaml", "--format", "github") == (
        1,
        "::error file=a%2Cb.yaml,line=4,col=1,title=tersely::x: unknown key 'x' in a recipe "
        "(the keys are pruning, quantization, distillation, stages, requires, strict, on_conflict)\n",
        "",
    )


def test_a_file_that_cannot_be_read_is_a_problem_like_others(run, write):
    write("good.yaml", GOOD)

    assert run("validate", "god.yaml", "good.yaml") == (
        1,
        (
            f"god.yaml: {NO_SUCH_FILE} (did you mean 'good.yaml'?)\n"
            "good.yaml: valid (recipe)\n"
            "1 problem in 1 of 2 files\n"
        ),
        "",
    )


def test_the_method_of_a_config_list_is_told_from_its_keys(run, write):
    write("a.yaml", "- {op_types: [a], target_settings: {weight: {sparse_ratio: 0.5}}}\n")
    write("b.yaml", "- {op_types: [a], link: b}\n")

    assert run("validate", "a.yaml", "b.yaml")[1] == (
        "a.yaml: valid (pruning config list)\nb.yaml: valid (distillation config list)\n"
    )


def test_a_config_list_that_might_be_of_any_method_asks_for_it(run, write):
    write("a.yaml", "- {op_types: [a]}\n")

    assert run("validate", "a.yaml") == (
        1,
        "a.yaml:1:1: found a config list whose keys do not show its method "
        "(name it with --method pruning|quantization|distillation)\n"
        "    1 | - {op_types: [a]}\n"
        "      | ^\n"
        "1 problem in 1 of 1 file\n",
        "",
    )
    assert run("validate", "a.yaml", "--method", "pruning")[0] == 0


def test_the_recipe_of_a_job_is_checked_too(run, write, tmp_path):
    write("jobs/recipe.yaml", "pruning: 3\n")
    write("jobs/job.yaml", "model: a\noutput: out\nrecipe: recipe.yaml\n")

    assert run("validate", "jobs/job.yaml") == (
        1,
        "jobs/job.yaml:1:8: model: found 'a', expected a string such as 'my_package.models:build'\n"
        "    1 | model: a\n"
        "      |        ^\n"
        "jobs/recipe.yaml:1:10: pruning: found 3, expected a pruning stage or a list of them\n"
        "    1 | pruning: 3\n"
        "      |          ^\n"
        "2 problems in 2 of 2 files\n",
        "",
    )


def test_a_job_without_its_recipe_file_says_so(run, write):
    write("job.yaml", "model: a:b\noutput: out\nrecipe: nowhere.yaml\n")

    assert run("validate", "job.yaml") == (
        1,
        (
            f"job.yaml:3:9: recipe: found 'nowhere.yaml', {RECIPE_FILE} 'nowhere.yaml' "
            f"{RELATIVE_TO_JOB}\n"
            "    3 | recipe: nowhere.yaml\n"
            "      |         ^^^^^^^^^^^^\n"
            "1 problem in 1 of 1 file\n"
        ),
        "",
    )


def test_the_schema_is_printed(run):
    status, output, _ = run("schema")

    assert status == 0
    assert json.loads(output) == schema()


def test_the_schema_is_written_for_any_kind_of_document(run, tmp_path):
    assert run("schema", "--kind", "job", "--output", "job.schema.json") == (
        0,
        "",
        "wrote job.schema.json\n",
    )
    assert json.loads((tmp_path / "job.schema.json").read_text()) == schema("job")
    assert [path.name for path in tmp_path.iterdir()] == ["job.schema.json"]


def test_a_schema_that_cannot_be_written_leaves_no_trace(run, write):
    write("file", "")
    status, _, errors = run("schema", "--output", "file/schema.json")

    assert status == 1
    assert errors.startswith("Error: file/schema.json cannot be written: ")


def test_a_config_list_is_migrated_to_yaml(run, write):
    write("old.yaml", "- {op_types: [Linear], sparsity: 0.5}\n")

    assert run("migrate", "old.yaml") == (0, "- op_types: [Linear]\n  sparse_ratio: 0.5\n", "")


def test_a_config_list_is_migrated_to_json_when_it_was_json(run, write, tmp_path):
    write("old.json", '[{"op_types": ["Linear"], "sparsity": 0.5}]')
    run("migrate", "old.json", "--output", "new.json")

    assert json.loads((tmp_path / "new.json").read_text()) == [
        {"op_types": ["Linear"], "sparse_ratio": 0.5}
    ]


def test_what_cannot_be_migrated_is_shown_in_its_place(run, write):
    write("old.yaml", "- op_types: [Linear]\n  sparsity: 0.5\n  frequency: 2\n")

    assert run("migrate", "old.yaml") == (
        1,
        "",
        (
            "tersely: old.yaml has 1 problem:\n"
            f"old.yaml:3:14: [0].frequency: 'frequency' {NOT_IN_CONFIG_LISTS} ({SCHEDULE_INSTEAD}"
            ")\n"
            "    3 |   frequency: 2\n"
            "      |              ^\n"
        ),
    )
