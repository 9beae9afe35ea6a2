"""Mistakes with one right answer, written into the text that has them."""

import json

import pytest

from tersely.cli.main import main
from tersely.document.messages.fixing import fix_text
from tersely.document.reading.json_text import read_json
from tersely.document.reading.yaml_text import read_yaml
from tersely.document.validate import find_problems
from tersely.errors import Fix


def mended(text, kind="recipe", *, is_json=False):
    """A text with the fixes of its own problems made, once."""
    read = read_json if is_json else read_yaml
    fixes = [one.fix for one in find_problems(read(text), kind) if one.fix is not None]
    return fix_text(text, fixes, is_json=is_json)[0]


def entry(line):
    return f"pruning:\n  algorithm: level\n  config_list:\n    - op_types: [Linear]\n      {line}\n"


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("sparse-ratio: 0.5", "sparse_ratio: 0.5"),
        ("'sparse_ration': 0.5  # half", "'sparse_ratio': 0.5  # half"),
        ('"sparse_ration" : 0.5', '"sparse_ratio" : 0.5'),
        ("sparse_ratio: '0.5'", "sparse_ratio: 0.5"),
        ('sparse_ratio: "50%" # half', "sparse_ratio: 0.5 # half"),
        ("sparsity: 0.5", "sparse_ratio: 0.5"),
        ("target_names: weight", "target_names: [weight]"),
        ("pattern: '2:4'", "granularity: '2:4'"),
        ("granularity: out_chanel", "granularity: out_channel"),
    ],
)
def test_a_mistake_with_one_right_answer_is_mended_in_its_line(written, right):
    assert mended(entry(written)) == entry(right)


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("bits: 4", "quant_dtype: int4"),
        ("quant_dtype: 8", "quant_dtype: int8"),
        ("quant_dtype: fp8", "quant_dtype: float8_e4m3fn"),
        ("symmetric: false", "quant_scheme: affine"),
        ("quant_scheme: asymmetric", "quant_scheme: affine"),
    ],
)
def test_the_words_of_other_libraries_are_translated(written, right):
    text = "- {{op_types: [Linear], target_names: [weight], {}}}\n"

    assert mended(text.format(written), "quantization") == text.format(right)


def test_a_key_of_the_stage_moves_out_of_its_entry_with_its_lines_and_comments():
    text = (
        "pruning:\n"
        "  - algorithm: level\n"
        "    config_list:\n"
        "      - op_types: [Linear]\n"
        "        schedule:\n"
        "          name: agp\n"
        "          # slowly\n"
        "          begin: 1\n"
        "        sparse_ratio: 0.5\n"
    )

    assert mended(text) == (
        "pruning:\n"
        "  - schedule:\n"
        "      name: agp\n"
        "      # slowly\n"
        "      begin: 1\n"
        "    algorithm: level\n"
        "    config_list:\n"
        "      - op_types: [Linear]\n"
        "        sparse_ratio: 0.5\n"
    )


def test_a_key_that_begins_its_entry_leaves_the_dash_to_the_next_one():
    text = (
        "pruning:\n"
        "  algorithm: level\n"
        "  config_list:\n"
        "    - schedule: {name: agp}\n"
        "      op_types: [Linear]\n"
    )

    assert mended(text) == (
        "pruning:\n"
        "  schedule: {name: agp}\n"
        "  algorithm: level\n"
        "  config_list:\n"
        "    - op_types: [Linear]\n"
    )


def test_what_two_entries_claim_for_their_stage_is_left_to_a_person():
    text = (
        "pruning:\n"
        "  algorithm: level\n"
        "  config_list:\n"
        "    - {op_types: [Linear], schedule: {name: agp}}\n"
        "    - {op_types: [Conv2d], schedule: {name: linear}}\n"
    )

    assert mended(text) == text


def test_a_value_that_an_alias_repeats_is_left_alone():
    text = (
        "pruning:\n"
        "  algorithm: level\n"
        "  config_list:\n"
        "    - {op_types: &types Linear}\n"
        "    - {op_types: *types}\n"
    )

    assert mended(text) == text


def test_a_fix_that_would_change_something_else_is_not_made():
    text = "a: {b: 1, c: 2}\n"

    assert fix_text(text, [Fix(("a", "b"), ("a", "c"), keeps_value=True)], is_json=False) == (
        text,
        (),
    )


def test_json_stays_json():
    text = '{"pruning": {"algorithm": "level", "config_list": [{"op_type": ["Linear"], "sparse_ratio": "1"}]}}'

    assert mended(text, is_json=True) == text.replace("op_type", "op_types").replace('"1"', "1")


def test_two_names_that_are_equally_near_have_no_one_answer():
    (problem,) = find_problems(
        read_yaml("pruning: {algorithm: lev, config_list: [{op_types: [a]}]}"), "recipe"
    )
    assert problem.fix is None


def test_what_stands_below_a_misspelt_stage_is_reported_at_its_own_place(lines):
    text = (
        "distilation:\n  config_list:\n    - {op_types: [Linear], apply_method: msee}\nprune: 3\n"
    )

    assert [line.split(": found")[0].split(": unknown")[0] for line in lines(text)] == [
        "1:1: distilation",
        "3:42: distilation.config_list[0].apply_method",
        "4:1: prune",
    ]


def test_misspelt_keys_inside_one_another_hide_nothing(lines):
    text = (
        "prunning:\n  algorithm: level\n  config_lst:\n    - {op_type: [Linear], sparse_ratio: 2}\n"
    )

    assert [line.split(": ")[1] for line in lines(text)] == [
        "prunning",
        "prunning.config_lst",
        "prunning.config_lst[0].op_type",
        "prunning.config_lst[0].sparse_ratio",
    ]


@pytest.fixture
def fix(capsys, tmp_path, monkeypatch):
    """Mends a file through the command line: exit status, its bytes, output, errors."""
    monkeypatch.chdir(tmp_path)

    def command(data, name="recipe.yaml"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SystemExit) as caught:
            main(["validate", "--fix", name])
        output = capsys.readouterr()
        return caught.value.code, (tmp_path / name).read_bytes(), output.out, output.err

    return command


def test_the_command_says_what_it_mended_and_what_is_left(fix):
    status, data, output, errors = fix(
        b"pruning:\n  algoritm: level\n  config_list: [{op_types: [a], sparse_ratio: 3}]\n"
    )

    assert status == 1
    assert data.startswith(b"pruning:\n  algorithm: level\n")
    assert errors == (
        "recipe.yaml:2:3: pruning.algoritm: unknown key 'algoritm' in a pruning stage "
        "(did you mean 'algorithm'?): fixed\n"
    )
    assert output.splitlines()[0].endswith(
        "found 3, expected a number from 0 to 1 (for 3 percent write 0.03)"
    )


def test_windows_line_ends_and_the_byte_order_mark_stay(fix):
    text = "\ufeffpruning:\r\n  algoritm: level\r\n  config_list: [{op_types: [a]}]\r\n"

    assert fix(text.encode())[1] == text.replace("algoritm", "algorithm").encode()


def test_a_file_of_two_kinds_of_line_ends_is_not_touched(fix):
    data = b"pruning:\r\n  algoritm: level\n  config_list: [{op_types: [a]}]\n"

    assert fix(data)[:2] == (1, data)


def test_a_file_without_mistakes_is_not_written(fix, tmp_path):
    data = json.dumps({"pruning": {"algorithm": "level", "config_list": [{"op_types": ["a"]}]}})

    assert fix(data.encode(), "recipe.json")[:2] == (0, data.encode())
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.json"]
