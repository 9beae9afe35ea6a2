"""What is said about keys that are unknown, missing, or in the wrong place."""

import pytest
from messages.documents import (
    IN_A_JOB,
    IN_AN_ENTRY,
    LIST_OF_MAPPINGS,
    LOSS_IN_ENTRIES,
    NO_KEYS,
    OPTIONS_INSTEAD,
    SCHEDULE_INSTEAD,
    at_least,
    did_you_mean,
    found,
    list_of_at_least,
    migrated,
    misplaced_key,
    unknown_key,
    without_stages,
)

STAGE = "pruning: {algorithm: level, config_list: [{op_types: [Linear], %s}]}"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("sparse_ration", unknown_key("sparse_ration", "a pruning entry", did_you_mean("sparse_ratio"))),
        ("op_type", unknown_key("op_type", "a pruning entry", did_you_mean("op_types"))),
        ("quant_dtype", misplaced_key("quant_dtype", "a quantization entry", "a pruning entry", "write it in an entry under 'quantization'")),
        ("lambda", misplaced_key("lambda", "a distillation entry", "a pruning entry", "write it in an entry under 'distillation'")),
        ("fuse_names", misplaced_key("fuse_names", "a quantization entry", "a pruning entry", "write it in an entry under 'quantization'")),
        ("algorithm", misplaced_key("algorithm", "a pruning stage", "a pruning entry", "write it in the stage, next to 'config_list'")),
        ("strict", misplaced_key("strict", "a recipe", "a pruning entry", "write it at the top of the recipe")),
        ("dims", misplaced_key("dims", "an alignment", "a pruning entry", "write it under 'align'")),
        ("model", misplaced_key("model", "a job", "a pruning entry", IN_A_JOB)),
    ],
)  # fmt: skip
def test_a_key_that_a_pruning_entry_does_not_have(lines, key, message):
    assert lines(STAGE % f"{key}: 1") == [f"1:64: pruning.config_list[0].{key}: {message}"]


@pytest.mark.parametrize(
    ("method", "key", "message"),
    [
        ("quantization", "sparse_ratio", misplaced_key("sparse_ratio", "a pruning entry", "a quantization entry", "write it in an entry under 'pruning'")),
        ("distillation", "granularity", misplaced_key("granularity", "a pruning entry or a quantization entry", "a distillation entry", "write it in an entry under 'pruning' or 'quantization'")),
        ("distillation", "task_loss_weight", misplaced_key("task_loss_weight", "a distillation stage", "a distillation entry", "write it in the stage, next to 'config_list'")),
    ],
)  # fmt: skip
def test_a_key_that_another_entry_does_not_have(entry_lines, method, key, message):
    assert entry_lines(method, **{key: 1}) == [f"[0].{key}: {message}"]


def test_an_unknown_key_that_is_near_to_nothing_is_told_all_keys(entry_lines):
    assert entry_lines("distillation", foo=1) == [
        "[0].foo: "
        + unknown_key(
            "foo",
            "a distillation entry",
            "the keys are op_names, op_names_re, op_types, exclude_op_names, exclude_op_names_re, exclude_op_types, target_names, target_settings, lambda, link, apply_method, projection",
        )
    ]


def test_a_common_key_does_not_belong_to_one_target(entry_lines):
    assert entry_lines("pruning", target_settings={"weight": {"op_types": ["a"]}}) == [
        "[0].target_settings.weight.op_types: "
        + misplaced_key(
            "op_types",
            "a pruning entry",
            "a pruning target's setting",
            "write it in the entry, next to 'target_settings'",
        )
    ]


def test_a_target_has_a_name(entry_lines):
    assert entry_lines("pruning", target_settings={"": {}}) == [
        "[0].target_settings['']: " + found("the key ''", "a string that is not empty")
    ]


def test_a_setting_is_a_mapping(entry_lines):
    assert entry_lines("pruning", target_settings={"weight": 0.5}) == [
        "[0].target_settings.weight: " + found("0.5", "a pruning target's setting", "a mapping")
    ]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("op_partial_names", migrated("write op_names_re")),
        ("sparsity", migrated("write sparse_ratio")),
        ("sparsity_per_layer", migrated("write sparse_ratio")),
        ("total_sparsity", migrated("write sparse_ratio with a global_group_id")),
        ("max_sparsity_per_layer", migrated("write max_sparse_ratio")),
        ("exclude", migrated("write exclude_op_names, exclude_op_names_re or exclude_op_types")),
        ("quant_types", migrated("write target_names")),
        ("quant_bits", migrated("write quant_dtype")),
        ("quant_start_step", OPTIONS_INSTEAD),
        ("start_epoch", SCHEDULE_INSTEAD),
        ("final_sparsity", "write sparse_ratio, and a schedule in the pruning stage"),
    ],
)  # fmt: skip
def test_a_legacy_key_says_what_to_write(entry_lines, key, hint):
    assert entry_lines("pruning", **{key: 1}) == [
        f"[0].{key}: {key!r} is a key of NNI 1.x/2.x, not of this specification ({hint})"
    ]


@pytest.mark.parametrize("key", ["op_types", "exclude_op_types"])
def test_the_legacy_type_default_says_what_to_write(entry_lines, key):
    entry = {"op_names": ["a"], key: ["Linear", "default"]}

    assert entry_lines("pruning", **entry) == [
        f"[0].{key}[1]: 'default' stands for every layer with weights in NNI 1.x/2.x only "
        "(name the types, as in [Conv2d, Linear]; `tersely migrate` rewrites the list)"
    ]


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("[{op_types: [a]}]", ["1:1: " + found('[{"op_types": ["a"]}]', "a recipe (a mapping)", "a config list belongs in a stage, under config_list in one of pruning, quantization, distillation")]),
        ("3", ["1:1: " + found("3", "a recipe", "a mapping")]),
        ("{}", ["1:1: " + without_stages()]),
        ("pruning:", ["1:1: " + without_stages()]),
        ("prunning: {algorithm: level, config_list: [{op_types: [a]}]}", ["1:1: prunning: " + unknown_key("prunning", "a recipe", did_you_mean("pruning"))]),
        ("pruning: 3", ["1:10: pruning: " + found("3", "a pruning stage or a list of them")]),
        ("pruning: []", ["1:10: pruning: " + found("[]", "a pruning stage or a list of them")]),
        ("pruning: [3]", ["1:11: pruning[0]: " + found("3", "a pruning stage", "a mapping")]),
        ("pruning: {}", ["1:10: pruning: missing key 'algorithm' in a pruning stage (write algorithm: l1_norm, level, power or taylor)", f"1:10: pruning: missing key 'config_list' in a pruning stage (write config_list: {list_of_at_least(1, 'mapping')})"]),
        ("pruning: {algoritm: level, config_list: [{op_types: [a]}]}", ["1:11: pruning.algoritm: " + unknown_key("algoritm", "a pruning stage", did_you_mean("algorithm"))]),
        ("pruning: {algorithm: level, config_list: []}", ["1:42: pruning.config_list: " + found("[]", list_of_at_least(1, "mapping"))]),
        ("pruning: {algorithm: level, config_list: {op_types: [a]}}", ["1:42: pruning.config_list: " + found('{"op_types": ["a"]}', list_of_at_least(1, "mapping"), LIST_OF_MAPPINGS)]),
        ("pruning: {algorithm: level, config_list: [a]}", ["1:43: pruning.config_list[0]: " + found("'a'", "a pruning entry", "a mapping")]),
        ("distillation: {algorithm: a, config_list: [{op_types: [a]}]}", ["1:16: distillation.algorithm: " + misplaced_key("algorithm", "a pruning stage or a quantization stage", "a distillation stage", f"{LOSS_IN_ENTRIES} a")]),
        ("quantization: {algorithm: ptq, op_types: [a], config_list: [{op_types: [a]}]}", ["1:32: quantization.op_types: " + misplaced_key("op_types", "a quantization entry", "a quantization stage", f"write it {IN_AN_ENTRY}")]),
        ("quantization: {algorithm: ptq, begin: 1, config_list: [{op_types: [a]}]}", ["1:32: quantization.begin: " + unknown_key("begin", "a quantization stage", "the keys are algorithm, options, config_list, unreached, preset, for, reduce_range, fuse_names, exclude_op_names, exclude_op_names_re, exclude_op_types")]),
        ("pruning: {algorithm: level, begin: 1, config_list: [{op_types: [a]}]}", ["1:29: pruning.begin: " + misplaced_key("begin", "a schedule", "a pruning stage", "write it under 'schedule'")]),
    ],
)  # fmt: skip
def test_a_recipe_or_stage_of_the_wrong_shape(lines, text, messages):
    assert lines(text) == messages


def test_the_keys_of_a_recipe_have_their_types(lines):
    stage = "pruning: {algorithm: level, config_list: [{op_types: [a]}]}\n"

    assert lines(stage + 'strict: "true"\nrequires: tersely\non_conflict: frist\nsparse_ratio: 1') == [
        "2:9: strict: " + found("'true'", "true or false", "write true without quotes"),
        "3:11: requires: " + found("'tersely'", "a list of strings", "write a list: [tersely]"),
        "4:14: on_conflict: " + found("'frist'", "first, last or error", did_you_mean("first")),
        "5:1: sparse_ratio: " + misplaced_key("sparse_ratio", "a pruning entry", "a recipe", "write it in an entry under 'pruning'"),
    ]  # fmt: skip


def test_a_schedule_counts_steps(lines):
    schedule = "{name: agp, begin: -1, every: 0, times: 1.5, steps: 3, options: {a: 1}}"

    assert lines(
        f"pruning:\n  algorithm: level\n  schedule: {schedule}\n  config_list: [{{op_types: [a]}}]"
    ) == [
        "3:32: pruning.schedule.begin: " + found("-1", at_least(0)),
        "3:43: pruning.schedule.every: " + found("0", at_least(1)),
        "3:53: pruning.schedule.times: " + found("1.5", at_least(1)),
        "3:58: pruning.schedule.steps: "
        + unknown_key("steps", "a schedule", "the keys are name, begin, every, times, options"),
        "3:78: pruning.schedule.options.a: " + unknown_key("a", "the options of agp", NO_KEYS),
    ]


HINT = " (excludes only remove modules; to select every module, write op_names_re: ['.*'])"


@pytest.mark.parametrize(
    ("entry", "hint"),
    [("{}", ""), ("{op_names: [], op_types: }", ""), ("{exclude_op_names: [a]}", HINT)],
)
def test_an_entry_selects_something(lines, entry, hint):
    assert lines(f"[{entry}]", "pruning") == [
        f"1:2: [0]: a pruning entry needs at least one of op_names, op_names_re or op_types{hint}"
    ]


def test_a_job_of_the_wrong_shape(lines):
    text = """\
model: a
output: ''
export: [{format: onnxx}, {format: onnx, options: {opset: 3, x: 1}}, {}]
seed: -1
data: {calib: a:b}
train: train.py:fit:x
model_args: [1]
pruning: {}
"""

    assert lines(text, "job") == [
        "1:1: missing key 'recipe' in a job (write recipe: a string that is not empty or a mapping)",
        "1:8: model: " + found("'a'", "a string such as 'my_package.models:build'"),
        "2:9: output: " + found("''", "a string that is not empty"),
        "3:19: export[0].format: " + found("'onnxx'", "an exporter: onnx", did_you_mean("onnx")),
        "3:59: export[1].options.opset: " + found("3", at_least(17)),
        "3:62: export[1].options.x: " + unknown_key("x", "the options of onnx", "the only key is opset"),
        "3:70: export[2]: missing key 'format' in an export (write format: onnx)",
        "4:7: seed: " + found("-1", at_least(0)),
        "5:8: data.calib: " + unknown_key("calib", "the data of a job", did_you_mean("calibration")),
        "6:8: train: " + found("'train.py:fit:x'", "a string such as 'my_package.models:build'"),
        "7:13: model_args: " + found("[1]", "a mapping"),
        "8:1: pruning: " + misplaced_key("pruning", "a recipe", "a job", "write it at the top of the recipe"),
    ]  # fmt: skip


def test_a_job_in_other_words(lines):
    text = """\
model: my_models.build
train: train.py
export: onnx
output: out
recipe:
  pruning:
    algorithm: level
    schedule: {name: cubic, start: 2, every: 1, times: 3}
    config_list: [{op_types: [Linear], align: fc1}]
"""

    hints = [line.rpartition(" (")[2].removesuffix(")") for line in lines(text, "job")]

    assert hints == [
        "write my_models:build",
        "2:8: train: found 'train.py', expected a string such as 'my_package.models:build'",
        "write a list: [{format: onnx}]",
        "write agp",
        "write begin: 2",
        "write a mapping: {module_name: fc1, target_name: weight, dims: [0]}",
    ]


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("benchmark", "true", "write {} to use the defaults"),
        ("output", "3", "write '3' in quotes"),
        ("export", "[onnx]", "write a mapping: {format: onnx}"),
    ],
)
def test_what_stands_for_a_mapping_or_for_text_in_a_job_is_said(lines, key, value, hint):
    text = f"model: a:b\nrecipe: recipe.yaml\n{key}: {value}\n"

    hints = [line.rpartition(" (")[2].removesuffix(")") for line in lines(text, "job")]

    assert hint in hints


def test_a_recipe_inside_a_job_is_checked_in_its_place(lines):
    text = "model: a:b\noutput: out\nrecipe:\n  pruning: {algorithm: level, config_list: [{}]}\n"

    assert lines(text, "job") == [
        "4:45: recipe.pruning.config_list[0]: a pruning entry needs at least one of op_names, "
        "op_names_re or op_types"
    ]
