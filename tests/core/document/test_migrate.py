"""Config lists of NNI 1.x and 2.x in this specification."""

import pytest
from messages.documents import (
    NOT_IN_CONFIG_LISTS,
    OPTIONS_INSTEAD,
    SCHEDULE_INSTEAD,
    did_you_mean,
    found,
)

from tersely import ConfigError, migrate
from tersely.document.load import parse_config_list

WEIGHTED = [
    "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d",
    "Linear", "Bilinear", "Embedding", "EmbeddingBag",
]  # fmt: skip


def refusals(config_list):
    with pytest.raises(ConfigError) as caught:
        migrate(config_list)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"sparsity": 0.5}, {"sparse_ratio": 0.5}),
        ({"sparsity_per_layer": 0.5}, {"sparse_ratio": 0.5}),
        ({"total_sparsity": 0.5}, {"sparse_ratio": 0.5, "global_group_id": "total_sparsity_0"}),
        ({"total_sparsity": 0.5, "max_sparsity_per_layer": 0.9}, {"sparse_ratio": 0.5, "global_group_id": "total_sparsity_0", "max_sparse_ratio": 0.9}),
        ({"sparsity": 0.5, "op_partial_names": ["a.b", "c"]}, {"sparse_ratio": 0.5, "op_names_re": [".*a\\.b", ".*c"]}),
    ],
)  # fmt: skip
def test_pruning_keys_get_their_new_names(old, new):
    (entry,) = migrate([{"op_types": ["Linear"], **old}])

    assert entry == {"op_types": ["Linear"], **new}


def test_the_type_default_becomes_every_layer_with_weights():
    (entry,) = migrate([{"op_types": ["default"], "sparsity": 0.5}])

    assert entry == {"op_types": WEIGHTED, "sparse_ratio": 0.5}


def test_an_exclude_is_taken_from_the_entries_before_it_only():
    assert migrate(
        [
            {"op_types": ["Conv2d"], "sparsity": 0.5},
            {"exclude": True, "op_names": ["conv1"]},
            {"op_types": ["Linear"], "sparsity": 0.8},
        ]
    ) == [
        {"op_types": ["Conv2d"], "sparse_ratio": 0.5, "exclude_op_names": ["conv1"]},
        {"op_types": ["Linear"], "sparse_ratio": 0.8},
    ]


def test_excludes_add_up():
    (entry,) = migrate(
        [
            {"op_types": ["Conv2d"], "sparsity": 0.5},
            {"exclude": True, "op_names": ["a"]},
            {"exclude": True, "op_types": ["Linear"]},
            {"exclude": True, "op_partial_names": ["b"], "op_names": ["a", "c"]},
        ]
    )

    assert entry == {
        "op_types": ["Conv2d"],
        "sparse_ratio": 0.5,
        "exclude_op_names": ["a", "c"],
        "exclude_op_types": ["Linear"],
        "exclude_op_names_re": [".*b"],
    }


def test_pruning_entries_that_may_overlap_are_turned_around():
    # NNI: the last one that matches decides; here the first one does.
    assert migrate(
        [{"op_types": ["Linear"], "sparsity": 0.5}, {"op_names": ["fc"], "sparsity": 0.8}]
    ) == [
        {"op_names": ["fc"], "sparse_ratio": 0.8},
        {"op_types": ["Linear"], "sparse_ratio": 0.5},
    ]


def test_quantization_targets_get_their_new_names():
    assert migrate(
        [
            {"op_types": ["ReLU"], "quant_types": ["output"], "quant_bits": 8},
            {
                "op_types": ["Conv2d"],
                "quant_types": ["weight", "input"],
                "quant_bits": {"weight": 8, "input": 4},
            },
        ]
    ) == [
        {"op_types": ["ReLU"], "target_names": ["_output_"], "quant_dtype": "int8"},
        {
            "op_types": ["Conv2d"],
            "target_names": ["weight", "_input_"],
            "target_settings": {
                "weight": {"quant_dtype": "int8"},
                "_input_": {"quant_dtype": "int4"},
            },
        },
    ]


def test_quantization_schemes_split_into_scheme_and_granularity():
    (entry,) = migrate(
        [
            {
                "op_types": ["Conv2d"],
                "quant_types": ["weight", "output"],
                "quant_bits": 8,
                "quant_dtype": {"weight": "int", "output": "uint"},
                "quant_scheme": {"weight": "per_channel_symmetric", "output": "per_tensor_affine"},
            }
        ]
    )

    assert entry == {
        "op_types": ["Conv2d"],
        "target_names": ["weight", "_output_"],
        "target_settings": {
            "weight": {
                "quant_dtype": "int8",
                "quant_scheme": "symmetric",
                "granularity": "per_channel",
            },
            "_output_": {"quant_dtype": "uint8", "quant_scheme": "affine"},
        },
    }


@pytest.mark.parametrize(
    ("method", "entry"),
    [
        ("pruning", {"op_types": ["Linear"], "sparse_ratio": 0.5}),
        ("quantization", {"op_types": ["Linear"], "quant_dtype": "int8"}),
    ],
)
def test_a_list_of_this_specification_comes_back_as_it_is(method, entry):
    config_list = [entry, {"op_names": ["a"], **entry}]

    assert migrate(config_list) == config_list
    assert migrate(config_list)[0] is not entry
    parse_config_list(method, migrate(config_list))


def test_what_is_migrated_is_not_changed():
    config_list = [{"op_types": ["Linear"], "sparsity": 0.5}, {"exclude": True, "op_names": ["a"]}]
    before = repr(config_list)
    migrate(config_list)

    assert repr(config_list) == before


@pytest.mark.parametrize(
    ("config_list", "message"),
    [
        ({"sparsity": 0.5}, found('{"sparsity": 0.5}', "a config list")),
        ([{"sparsity": 0.5}, 3], "[1]: " + found("3", "an entry", "a mapping")),
        ([{"sparsity": 0.5, "op_partial_names": "a"}], "[0].op_partial_names: " + found("'a'", "a list of strings")),
        ([{"total_sparsity": 0.5, "max_sparsity_per_layer": {"a": 0.9}}], "[0].max_sparsity_per_layer: " + found("a largest sparsity for each layer", "one number", "write an entry with op_names and max_sparse_ratio for each layer")),
        ([{"sparsity": 0.5, "start_epoch": 1}], f"[0].start_epoch: 'start_epoch' {NOT_IN_CONFIG_LISTS} ({SCHEDULE_INSTEAD})"),
        ([{"sparsity": 0.5}, {"exclude": True, "op_names": ["a"], "op_types": ["b"]}], "[1].exclude: an exclude by both names and types is not supported here (exclude by op_names alone, or by op_types alone)"),
        ([{"quant_types": ["wieght"], "quant_bits": 8}], "[0].quant_types[0]: " + found("'wieght'", "weight, bias, input or output", did_you_mean("weight"))),
        ([{"quant_types": "weight", "quant_bits": 8}], "[0].quant_types: " + found("'weight'", "a list of strings")),
        ([{"quant_types": ["weight"], "quant_bits": 32}], "[0].quant_bits: " + found("32", "an integer from 1 to 16", "32 bits are not quantized: leave the target out")),
        ([{"quant_types": ["weight"], "quant_bits": {"weight": "8"}}], "[0].quant_bits.weight: " + found("'8'", "an integer from 1 to 16")),
        ([{"quant_types": ["weight"], "quant_start_step": 3}], f"[0].quant_start_step: 'quant_start_step' {NOT_IN_CONFIG_LISTS} ({OPTIONS_INSTEAD})"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_here_is_refused(config_list, message):
    assert refusals(config_list) == [message]


def test_everything_that_has_no_meaning_is_said_at_once():
    assert len(refusals([{"frequency": 1, "sparsity": 0.5}, {"start_epoch": 1}, 3])) == 3
