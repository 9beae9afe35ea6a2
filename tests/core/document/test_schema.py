"""The composed schema: self-contained, complete, made anew when plugins change."""

import json

import jsonschema
import pytest

import tersely
from tersely.document.schemas.schema import KINDS, composed_schema, schema
from tersely.document.schemas.spec import read_schema, spec_directory


@pytest.mark.parametrize("name", ["config_list", "recipe", "job"])
def test_each_schema_of_the_specification_is_a_json_schema(name):
    jsonschema.Draft202012Validator.check_schema(read_schema(name))


@pytest.mark.parametrize("kind", KINDS)
def test_a_composed_schema_is_self_contained_json(kind):
    composed = schema(kind)
    jsonschema.Draft202012Validator.check_schema(composed)
    text = json.dumps(composed)

    assert "urn:tersely:spec" not in text
    references = {part.split('"')[0] for part in text.split('"$ref": "')[1:]}
    assert {reference.removeprefix("#/$defs/") for reference in references} <= set(
        composed["$defs"]
    )


def test_every_key_has_a_description():
    def undescribed(node, path=()):
        if isinstance(node, dict):
            for key, child in node.get("properties", {}).items():
                target = child
                if "$ref" in child:
                    target = composed["$defs"][child["$ref"].removeprefix("#/$defs/")]
                if "description" not in target:
                    yield (*path, key)
            for key, child in node.items():
                if key not in ("if", "then", "allOf", "not", "anyOf"):
                    yield from undescribed(child, (*path, key))

    composed = schema("job")

    assert list(undescribed(composed)) == []


def test_the_names_of_installed_algorithms_are_listed_short_and_qualified():
    assert composed_schema("recipe")["$defs"]["quantizer_name"]["enum"] == [
        "ptq",
        "qat",
        "tersely-known:ptq",
        "tersely-known:qat",
    ]


def test_the_public_function_gives_a_recipe_schema_that_is_the_callers_own():
    tersely.schema()["$defs"].clear()

    assert tersely.schema() == composed_schema("recipe")
    assert tersely.schema()["$defs"]


def test_a_new_plugin_shows_up(registry):
    class Extra:
        @tersely.hookimpl
        def tersely_pruners(self):
            return [tersely.PrunerInfo(name="extra", implementation="a:B")]

    before = composed_schema("recipe")
    registry.register(Extra(), name="other")

    assert "extra" not in json.dumps(before)
    assert "extra" in composed_schema("recipe")["$defs"]["pruner_name"]["enum"]


def test_the_schema_is_made_once_for_each_state_of_the_registry():
    assert composed_schema("recipe") is composed_schema("recipe")


def test_an_editor_may_leave_a_value_empty():
    text = json.dumps({"op_types": ["a"], "sparse_ratio": None, "granularity": None, "align": None})
    validator = jsonschema.Draft202012Validator(schema("pruning"))

    assert validator.is_valid([json.loads(text)])


def test_a_kind_that_does_not_exist_is_refused():
    with pytest.raises(
        ValueError,
        match="kind is one of recipe, job, pruning, quantization, distillation, not 'recipes'",
    ):
        schema("recipes")


def test_the_specification_is_found():
    assert (spec_directory() / "recipe.schema.json").is_file()
