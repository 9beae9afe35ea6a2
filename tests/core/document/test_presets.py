"""Presets: what they stand for, what may stand beside them, and what is wrong."""

import json

import pytest

import tersely
from tersely.document.load import load_recipe
from tersely.document.presets import _presets
from tersely.document.recipe import Stage
from tersely.document.schemas.spec import spec_directory

NAMES = ["w8a8", "w8a8_dynamic", "w4a16", "w4a8_dynamic", "fp8"]
RUNTIMES = ["onnxruntime", "openvino", "vllm", "executorch"]


def test_the_schema_offers_the_presets_and_runtimes_that_exist() -> None:
    stage = json.loads((spec_directory() / "recipe.schema.json").read_text())["$defs"][
        "quantization_stage"
    ]["properties"]

    assert stage["preset"]["enum"] == [*_presets(), None] == [*NAMES, None]
    assert stage["for"]["enum"] == [*RUNTIMES, None]
    assert {name for one in _presets().values() for name in one["runtimes"]} == set(RUNTIMES)


def test_a_preset_is_the_callers_to_change() -> None:
    tersely.preset("w8a8")["config_list"].clear()

    assert len(tersely.preset("w8a8")["config_list"]) == 4


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("w8a9", None), "there is no preset 'w8a9' (did you mean 'w8a8'?)"),
        (
            ("int8", None),
            "there is no preset 'int8' (write w8a8, or w8a8_dynamic if there is no calibration "
            "data)",
        ),
        (("int", None), f"there is no preset 'int' (there are {', '.join(NAMES)})"),
        (("w8a8", "onnx"), "there is no runtime 'onnx' (did you mean 'onnxruntime'?)"),
        (
            ("fp8", "openvino"),
            "openvino has no integer kernels for preset 'fp8' "
            "(there are w8a8, w4a16 for openvino; fp8 is for vllm)",
        ),
    ],
)
def test_what_does_not_exist_is_answered_with_what_does(
    asked: tuple[str, str | None], message: str
) -> None:
    with pytest.raises(tersely.ConfigError) as raised:
        tersely.preset(*asked)

    assert str(raised.value.problems[0]) == message


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("int8", "write w8a8, or w8a8_dynamic if there is no calibration data"),
        (4, "write w4a16 for 4-bit weights only, or w4a8_dynamic for 8-bit inputs as well"),
        ("Dynamic", "write w8a8_dynamic"),
        ("e4m3", "write fp8"),
    ],
)
def test_a_number_format_leads_to_its_preset(word: object, advice: str) -> None:
    with pytest.raises(tersely.ConfigError) as raised:
        load_recipe({"quantization": {"preset": word}})

    (problem,) = raised.value.problems
    assert problem.hint == advice
    assert problem.fix is None


def stage(**data: object) -> Stage:
    return load_recipe({"quantization": data}).stages[0]


def test_an_algorithm_beside_a_preset_replaces_its_own() -> None:
    assert stage(preset="w8a8").algorithm == "ptq"
    assert stage(preset="w8a8", algorithm="qat").algorithm == "qat"


def test_a_runtime_has_entries_of_its_own() -> None:
    general, special = stage(preset="w8a8"), stage(preset="w8a8", **{"for": "onnxruntime"})

    assert [one.path for one in general.entries] == [f"quantization.preset[{i}]" for i in range(4)]
    assert [one.target_names for one in special.entries] == [
        ("weight",), ("weight",), ("weight",), ("_input_",), ("_output_",),
    ]  # fmt: skip


def test_own_entries_come_after_those_of_the_preset() -> None:
    found = stage(
        preset="w4a16", algorithm="ptq", config_list=[{"op_names": ["head"], "quant_dtype": "int8"}]
    )

    assert [(one.path, one.is_preset) for one in found.entries] == [
        ("quantization.preset[0]", True),
        ("quantization.config_list[0]", False),
    ]


def test_a_reduced_range_narrows_the_weights_that_8_bit_inputs_multiply() -> None:
    entries = tersely.preset("w8a8", "openvino", reduce_range=True)["config_list"]

    weights = {
        name: one["quant_dtype"]
        for one in entries
        if one["target_names"] == ["weight"]
        for name in one["op_types"]
    }
    assert weights.pop("Embedding") == "int8"  # which multiplies nothing
    assert {"Linear", "Conv2d"} < {*weights}
    assert {*weights.values()} == {"int7"}


def test_a_reduced_range_is_refused_where_nothing_could_overflow() -> None:
    with pytest.raises(tersely.ConfigError) as raised:
        tersely.preset("w8a8", "vllm", reduce_range=True)

    assert str(raised.value.problems[0]) == (
        "preset 'w8a8' for vllm has no reduced range (leave it out; there is one in w8a8 for "
        "onnxruntime or openvino, w8a8_dynamic for onnxruntime)"
    )


def test_the_plan_says_that_a_range_is_reduced() -> None:
    found = stage(preset="w8a8", reduce_range=True)

    assert found.preset.endswith(
        "; weights that are multiplied by 8-bit inputs have 7 bits (reduce_range)"
    )
