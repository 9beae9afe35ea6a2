"""What tersely-distillation says of itself."""

import inspect
import subprocess
import sys

import pytest
from messages.documents import number_above

import tersely

LOSSES = [
    "activation_regularization",
    "attention_transfer",
    "correlation",
    "cosine",
    "decoupled_kl",
    "hint",
    "kl",
    "l1",
    "mse",
    "probabilistic",
    "relational",
    "similarity_preserving",
    "smooth_l1",
]


def problem_of(name, **options):
    """The one problem of a recipe that gives a loss these options."""
    entry = {"op_types": ["Linear"], "apply_method": {name: options}}
    with pytest.raises(tersely.ConfigError) as caught:
        tersely.load_recipe({"distillation": {"config_list": [entry]}})
    [problem] = caught.value.problems
    return str(problem)


def test_all_losses_are_known():
    losses = tersely.registry().losses

    assert {losses.record(name).distribution for name in LOSSES} == {"tersely-distillation"}


@pytest.mark.parametrize("name", LOSSES)
def test_the_descriptor_names_the_function_and_its_paper(name):
    losses = tersely.registry().losses

    assert losses[name].__name__ == name
    assert losses.info(name).paper


@pytest.mark.parametrize("name", LOSSES)
def test_the_descriptor_has_the_options_of_the_function_and_their_defaults(name):
    losses = tersely.registry().losses
    parameters = list(inspect.signature(losses[name]).parameters.values())[2:]
    properties = losses.info(name).options["properties"]

    assert {option: schema["default"] for option, schema in properties.items()} == {
        parameter.name: parameter.default for parameter in parameters
    }
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters)
    assert all(schema["description"] for schema in properties.values())


@pytest.mark.parametrize("name", ["kl", "decoupled_kl", "correlation"])
def test_a_temperature_is_above_zero(name):
    assert problem_of(name, temperature=0).endswith(
        f"apply_method.{name}.temperature: found 0, {number_above(0)}"
    )


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("correlation", "beta"),
        ("correlation", "gamma"),
        ("decoupled_kl", "alpha"),
        ("decoupled_kl", "beta"),
        ("relational", "angle_weight"),
        ("relational", "distance_weight"),
    ],
)
def test_a_weight_is_not_negative(name, option):
    assert problem_of(name, **{option: -1}).endswith(
        f"apply_method.{name}.{option}: found -1, expected a number of at least 0"
    )


def test_the_square_of_smooth_l1_has_a_width():
    assert f"smooth_l1.beta: found 0, {number_above(0)}" in problem_of("smooth_l1", beta=0)


def test_the_power_of_attention_is_at_least_one():
    found = problem_of("attention_transfer", power=0.5)

    assert "attention_transfer.power: found 0.5, expected a number of at least 1" in found


def test_an_unknown_option_is_a_problem_with_the_nearest_one():
    assert "did you mean 'temperature'?" in problem_of("decoupled_kl", temperatur=2)


def test_the_face_imports_no_torch():
    code = "import sys, tersely_distillation; assert 'torch' not in sys.modules"

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
