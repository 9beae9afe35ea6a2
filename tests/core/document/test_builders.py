"""Typed entries are the mappings that one would write instead."""

import copy
import json
import pickle
from pathlib import Path

import attrs
import pytest

import tersely

SCHEMA = json.loads(
    (Path(__file__).parents[3] / "spec" / "config_list.schema.json").read_text(encoding="utf-8")
)
BUILDERS = {
    "pruning": tersely.PruningEntry,
    "quantization": tersely.QuantizationEntry,
    "distillation": tersely.DistillationEntry,
}


@pytest.mark.parametrize("method", BUILDERS)
def test_an_entry_has_exactly_the_keys_of_the_schema(method) -> None:
    keys = {field.name.rstrip("_") for field in attrs.fields(BUILDERS[method])}

    assert keys == set(SCHEMA["$defs"][f"{method}_entry"]["properties"])


def test_an_entry_is_the_mapping_of_what_was_given() -> None:
    entry = tersely.PruningEntry(op_types=["Linear"], sparse_ratio=0.5)

    assert entry == {"op_types": ["Linear"], "sparse_ratio": 0.5}
    assert entry.to_dict() == {"op_types": ["Linear"], "sparse_ratio": 0.5}
    assert (list(entry), len(entry), entry["sparse_ratio"]) == (
        ["op_types", "sparse_ratio"],
        2,
        0.5,
    )


def test_an_entry_shows_what_was_given() -> None:
    entry = tersely.DistillationEntry(op_names=["layer4"], lambda_=0.5)

    assert repr(entry) == "DistillationEntry(op_names=['layer4'], lambda_=0.5)"


def test_the_word_that_python_reserves_is_a_key() -> None:
    entry = tersely.DistillationEntry(op_names=["layer4"], lambda_=0.5)

    assert entry == {"op_names": ["layer4"], "lambda": 0.5}


@pytest.mark.parametrize(
    "twice", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_an_entry_can_be_copied(twice) -> None:
    entry = tersely.QuantizationEntry(op_names=["0"], quant_dtype="int4")

    assert twice(entry) == entry


def test_a_key_that_does_not_exist_is_pythons_own_error() -> None:
    with pytest.raises(TypeError, match="sparse_ration"):
        tersely.PruningEntry(op_types=["Linear"], sparse_ration=0.5)


def test_a_config_list_mixes_entries_and_mappings() -> None:
    mixed = tersely.load_recipe(
        {
            "quantization": {
                "algorithm": "ptq",
                "config_list": [
                    tersely.QuantizationEntry(op_types=["Linear"], quant_dtype="int4"),
                    {"op_types": ["Conv2d"]},
                ],
            }
        }
    )
    written = tersely.load_recipe(
        {
            "quantization": {
                "algorithm": "ptq",
                "config_list": [
                    {"op_types": ["Linear"], "quant_dtype": "int4"},
                    {"op_types": ["Conv2d"]},
                ],
            }
        }
    )

    assert mixed == written
    assert mixed.document == written.document


def test_a_wrong_value_is_reported_as_in_a_mapping() -> None:
    stage = {
        "algorithm": "level",
        "config_list": [tersely.PruningEntry(op_types=["Linear"], sparse_ratio=50)],
    }

    with pytest.raises(tersely.ConfigError) as caught:
        tersely.load_recipe({"pruning": stage})

    assert [str(problem) for problem in caught.value.problems] == [
        "pruning.config_list[0].sparse_ratio: found 50, expected a number from 0 to 1 "
        "(for 50 percent write 0.5)"
    ]


def test_a_recipe_is_built_from_its_keys() -> None:
    stage = {
        "algorithm": "level",
        "config_list": [tersely.PruningEntry(op_types=["Linear"], sparse_ratio=0.5)],
    }

    recipe = tersely.Recipe(pruning=stage, strict=True)

    assert recipe == tersely.load_recipe({"pruning": stage, "strict": True})
    assert recipe.document == {
        "pruning": {
            "algorithm": "level",
            "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5}],
        },
        "strict": True,
    }


def test_a_recipe_of_periods_is_built_from_its_keys() -> None:
    stage = {"algorithm": "level", "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0}]}

    recipe = tersely.Recipe(stages=[{"until": 5, "pruning": stage}, {"pruning": stage}])

    assert [one.begin for one in recipe.stages] == [0, 5]


def test_a_recipe_that_is_wrong_is_a_config_error() -> None:
    with pytest.raises(tersely.ConfigError, match="missing key 'config_list'"):
        tersely.Recipe(pruning={"algorithm": "level"})


def test_a_recipe_without_any_stage_is_a_config_error() -> None:
    with pytest.raises(tersely.ConfigError):
        tersely.Recipe()


def test_a_built_recipe_evolves_and_copies() -> None:
    stage = {"algorithm": "level", "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0}]}
    recipe = tersely.Recipe(pruning=stage)

    assert attrs.evolve(recipe, strict=True).strict
    assert pickle.loads(pickle.dumps(recipe)) == copy.deepcopy(recipe) == recipe
