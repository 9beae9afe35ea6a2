"""What is said about values that do not fit: found, expected, and what to write."""

import pytest
from messages.documents import (
    INTEGER_DTYPES,
    LIST_OF_MAPPINGS,
    NO_KEYS,
    at_least,
    did_you_mean,
    found,
    list_of_at_least,
    unknown_key,
)

SHARE = "a number from 0 to 1"


@pytest.mark.parametrize("key", ["sparse_ratio", "min_sparse_ratio", "max_sparse_ratio"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, found("1.5", SHARE)),
        (-0.5, found("-0.5", SHARE)),
        (50, found("50", SHARE, "for 50 percent write 0.5")),
        (12.5, found("12.5", SHARE, "for 12.5 percent write 0.125")),
        ("0.5", found("'0.5'", SHARE, "write 0.5 without quotes")),
        ("50%", found("'50%'", SHARE, "write 0.5")),
        ("half", found("'half'", SHARE)),
        (True, found("true", SHARE)),
        ([0.5], found("[0.5]", SHARE, "write 0.5 without brackets")),
        ([0.5, 0.25], found("[0.5, 0.25]", SHARE)),
        ({"weight": 0.5}, found('{"weight": 0.5}', SHARE)),
    ],
)
def test_a_share_is_a_number_from_0_to_1(entry_lines, key, value, message):
    assert entry_lines("pruning", **{key: value}) == [f"[0].{key}: {message}"]


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, 0.29])
def test_both_ends_of_a_share_are_legal(entry_lines, value):
    assert entry_lines("pruning", sparse_ratio=value) == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("sparse_threshold", "high", found("'high'", "a number")),
        ("internal_metric_block", 0, found("0", at_least(1))),
        ("internal_metric_block", 1.5, found("1.5", at_least(1))),
        ("internal_metric_block", "2", found("'2'", at_least(1), "write 2 without quotes")),
        ("global_group_id", 1.5, found("1.5", "a string or an integer")),
        ("dependency_group_id", True, found("true", "a string or an integer")),
        ("apply_method", "mull", found("'mull'", "mul or add", did_you_mean("mul"))),
        ("apply_method", "mse", found("'mse'", "mul or add")),
        ("apply_method", 1, found("1", "mul or add")),
        ("mask_value", 0, found("0", "a number other than 0")),
        ("mask_value", 0.0, found("0.0", "a number other than 0")),
        ("mask_value", "-1", found("'-1'", "a number other than 0", "write -1 without quotes")),
        ("align", "weight", found("'weight'", "an alignment (a mapping)", "write a mapping: {target_name: weight, dims: [0]}")),
        ("target_names", "weight", found("'weight'", "a list of strings", "write a list: [weight]")),
        ("op_names", "conv", found("'conv'", "a list of strings", "write a list: [conv]")),
        ("op_types", {"a": 1}, found('{"a": 1}', "a list of strings", LIST_OF_MAPPINGS)),
        ("target_settings", ["weight"], found('["weight"]', "a mapping")),
    ],
)  # fmt: skip
def test_a_pruning_value_of_the_wrong_kind(entry_lines, key, value, message):
    assert entry_lines("pruning", **{key: value}) == [f"[0].{key}: {message}"]


@pytest.mark.parametrize(
    ("align", "message"),
    [
        ({"dims": [0]}, "align: missing key 'target_name' in an alignment (write target_name: a string that is not empty)"),
        ({"target_name": "weight"}, f"align: missing key 'dims' in an alignment (write dims: {list_of_at_least(1, 'integer')})"),
        ({"target_name": "weight", "dims": 0}, "align.dims: " + found("0", list_of_at_least(1, "integer"), "write a list: [0]")),
        ({"target_name": "weight", "dims": []}, "align.dims: " + found("[]", list_of_at_least(1, "integer"))),
        ({"target_name": "weight", "dims": [0.5]}, "align.dims[0]: " + found("0.5", "an integer")),
        ({"target_name": "weight", "dims": [0], "dim": 1}, "align.dim: " + unknown_key("dim", "an alignment", did_you_mean("dims"))),
    ],
)  # fmt: skip
def test_an_alignment_needs_a_target_and_dimensions(entry_lines, align, message):
    assert entry_lines("pruning", align=align) == [f"[0].{message}"]


def test_an_alignment_may_count_dimensions_from_the_end_and_leave_the_module_out(entry_lines):
    align = {"module_name": None, "target_name": "weight", "dims": [-1]}

    assert entry_lines("pruning", align=align) == []


BITS = f"expected {INTEGER_DTYPES}, float8_e4m3fn, float8_e5m2, or int32 for a bias"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("quant_dtype", "INT8", f"found 'INT8', {BITS} (did you mean 'int8'?)"),
        ("quant_dtype", "int1", f"found 'int1', {BITS} (did you mean 'uint1'?)"),
        ("quant_dtype", "bfloat", f"found 'bfloat', {BITS}"),
        ("quant_dtype", 8, f"found 8, {BITS} (write int8)"),
        ("quant_scheme", "asymmetric", found("'asymmetric'", "symmetric or affine", "write affine")),
        ("apply_method", "clamp", found("'clamp'", "clamp_round, qat_clamp_round or bypass", did_you_mean("clamp_round"))),
        ("fuse_names", "atuo", found("'atuo'", "auto or none", did_you_mean("auto"))),
        ("fuse_names", 3, found("3", "a list of lists or a string such as 'auto'")),
    ],
)  # fmt: skip
def test_a_quantization_value_of_the_wrong_kind(entry_lines, key, value, message):
    assert entry_lines("quantization", **{key: value}) == [f"[0].{key}: {message}"]


@pytest.mark.parametrize(
    "name", ["int2", "int16", "uint1", "uint16", "float8_e4m3fn", "float8_e5m2"]
)
def test_every_width_of_the_specification_is_legal(entry_lines, name):
    assert entry_lines("quantization", quant_dtype=name) == []


def test_a_group_to_fuse_has_at_least_two_names(entry_lines):
    assert entry_lines("quantization", fuse_names=[["conv"], "bn", ["a", "b"]]) == [
        "[0].fuse_names[0]: " + found('["conv"]', list_of_at_least(2, "strings")),
        "[0].fuse_names[1]: " + found("'bn'", list_of_at_least(2, "strings")),
    ]


LINK = f"expected a string or {list_of_at_least(1, 'string')}"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lambda", -1, "lambda: " + found("-1", "a number of at least 0")),
        ("lambda", "1", "lambda: " + found("'1'", "a number of at least 0", "write 1 without quotes")),
        ("link", 3, f"link: found 3, {LINK}"),
        ("link", [], f"link: found [], {LINK}"),
        ("link", ["a", 1], "link[1]: " + found("1", "a string", "write '1' in quotes")),
        ("projection", "lineare", "projection: " + found("'lineare'", "linear or conv1x1", did_you_mean("linear"))),
        ("apply_method", ["kl"], "apply_method: " + found('["kl"]', "kl, mse or {name: {option: value}}")),
        ("apply_method", {"kl": {"temperature": 0}}, "apply_method.kl.temperature: " + found("0", "a number above 0")),
        ("apply_method", {"kl": {"alpha": 1}}, "apply_method.kl.alpha: " + unknown_key("alpha", "the options of kl", "the only key is temperature")),
        ("apply_method", {"kl": {"temp": 1}}, "apply_method.kl.temp: " + unknown_key("temp", "the options of kl", did_you_mean("temperature"))),
        ("apply_method", {"mse": {"a": 1}}, "apply_method.mse.a: " + unknown_key("a", "the options of mse", NO_KEYS)),
    ],
)  # fmt: skip
def test_a_distillation_value_of_the_wrong_kind(entry_lines, key, value, message):
    assert entry_lines("distillation", **{key: value}) == [f"[0].{message}"]


GRAIN = (
    "expected default, out_channel, per_channel, {name: {option: value}} or "
    f"{list_of_at_least(1, 'item')}"
)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("defualt", f"granularity: found 'defualt', {GRAIN} (did you mean 'default'?)"),
        ("channel", f"granularity: found 'channel', {GRAIN} (write out_channel)"),
        (5, f"granularity: found 5, {GRAIN}"),
        ("block", f"granularity: found 'block', {GRAIN} (write {{block: {{value: ...}}}})"),
        ([0, 4], "granularity[0]: " + found("0", f"-1 or {at_least(1)}")),
        ([], "granularity: " + found("[]", list_of_at_least(1, "item"))),
        ({}, "granularity: " + found("{}", "{name: {option: value}}")),
        ({"out_chanel": {}}, "granularity.out_chanel: " + found("'out_chanel'", "a granularity: block, out_channel or per_channel", did_you_mean("out_channel"))),
        ({"out_channel": 3}, "granularity.out_channel: " + found("3", "the options of out_channel", "a mapping")),
        ({"out_channel": {"a": 1}}, "granularity.out_channel.a: " + unknown_key("a", "the options of out_channel", NO_KEYS)),
        ({"block": {"value": [1.5]}}, "granularity.block.value[0]: " + found("1.5", f"-1 or {at_least(1)}")),
    ],
)  # fmt: skip
def test_a_granularity_that_nobody_understands(entry_lines, value, message):
    assert entry_lines("pruning", granularity=value) == [f"[0].{message}"]


@pytest.mark.parametrize(
    "value",
    [
        "default",
        "out_channel",
        "tersely-known:out_channel",
        [4, 4],
        [1, -1],
        [4.0],
        {"block": {"value": [4]}},
        {"out_channel": {}},
    ],
)
def test_every_spelling_of_a_granularity_is_legal(entry_lines, value):
    assert entry_lines("pruning", granularity=value) == []


def test_a_long_value_is_not_repeated_whole(entry_lines):
    assert entry_lines("pruning", sparse_ratio=list(range(30))) == [
        "[0].sparse_ratio: " + found("a list", SHARE)
    ]
    assert entry_lines("pruning", apply_method="x" * 100) == [
        f"[0].apply_method: found '{'x' * 55}...', expected mul or add"
    ]


def test_null_means_absent(entry_lines):
    nothing = {
        "op_names": None,
        "sparse_ratio": None,
        "granularity": None,
        "target_settings": {"weight": None, "bias": {"align": None}},
    }

    assert entry_lines("pruning", **nothing) == []


def test_an_empty_list_of_names_means_absent(entry_lines):
    assert entry_lines("pruning", op_names=[], exclude_op_names=[], target_names=[]) == []
    assert entry_lines("quantization", fuse_names=[]) == []
