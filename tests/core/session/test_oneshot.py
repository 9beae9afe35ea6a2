"""``tersely.prune`` and its siblings: one call, or nothing."""

import pytest
import torch
from messages.documents import list_of_at_least
from torch import nn

import tersely

pytestmark = pytest.mark.usefixtures("toy_pruners")

CONFIG = [{"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}]
OUTPUT = [{"op_names": ["1"], "target_names": ["_output_"], "sparse_ratio": 0.5}]


def assert_plain(model, before):
    assert [type(module) for module in model] == [nn.Linear, nn.ReLU, nn.Linear]
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any("_tersely_instruments" in vars(module) for module in model.modules())


@pytest.fixture
def model(build):
    return build()


@pytest.fixture
def before(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_prune_returns_a_session_whose_masks_are_in_force(model):
    session = tersely.prune(model, CONFIG, algorithm="toy")
    assert session.model is model
    assert int((model[0].weight == 0).sum()) == 16


def test_prune_with_data_calibrates(model, data):
    session = tersely.prune(model, OUTPUT, algorithm="toy", data=[data])
    assert session.sparsity()["1"]["_output_"] == 0.5


def test_prune_runs_batches_as_the_user_says(model, data):
    session = tersely.prune(
        model,
        OUTPUT,
        algorithm="toy",
        data=[{"x": data}],
        forward=lambda model, batch: model(batch["x"]),
    )
    assert session.sparsity()["1"]["_output_"] == 0.5


def test_data_that_is_missing_is_an_error_and_the_model_untouched(model, before):
    with pytest.raises(tersely.SessionError, match=r"call session\.calibrate\(batches\)"):
        tersely.prune(model, OUTPUT, algorithm="toy")
    assert_plain(model, before)


def test_an_algorithm_that_fails_leaves_the_model_untouched(model, before, odd):
    odd.score = lambda target: 1 / 0
    with pytest.raises(tersely.PluginError, match="ZeroDivisionError"):
        tersely.prune(model, CONFIG, algorithm="toy_odd")
    assert_plain(model, before)


def test_calibration_that_fails_leaves_the_model_untouched(model, before):
    with pytest.raises(tersely.CalibrationError):
        tersely.prune(model, OUTPUT, algorithm="toy", data=[])
    assert_plain(model, before)


def test_an_interruption_leaves_the_model_untouched(model, before):
    def interrupt():
        yield torch.zeros(1, 4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tersely.prune(model, OUTPUT, algorithm="toy", data=interrupt())
    assert_plain(model, before)


def test_a_wrong_document_leaves_the_model_untouched(model, before):
    with pytest.raises(tersely.ConfigError):
        tersely.prune(model, [{"op_types": ["Linear"], "sparse_ratio": 2}], algorithm="toy")
    assert_plain(model, before)


def test_a_document_that_does_not_fit_leaves_the_model_untouched(model, before):
    with pytest.raises(tersely.PlanError):
        tersely.prune(
            model, [{"op_types": ["Linear"], "target_names": ["wieght"]}], algorithm="toy"
        )
    assert_plain(model, before)


def test_options_reach_the_algorithm(model):
    with pytest.raises(tersely.ConfigError, match="power"):
        tersely.prune(model, CONFIG, algorithm="toy", options={"power": 2})


@pytest.mark.parametrize("source", ["file", "recipe", "mapping", "plan"])
def test_attach_takes_whatever_describes_a_plan(model, tmp_path, source):
    document = {"pruning": {"algorithm": "toy", "config_list": CONFIG}}
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "pruning:\n  algorithm: toy\n  config_list:\n"
        "    - {op_types: [Linear], target_names: [weight], sparse_ratio: 0.5}\n"
    )
    given = {
        "file": path,
        "recipe": tersely.load_recipe(document),
        "mapping": document,
        "plan": tersely.plan(model, document),
    }[source]
    session = tersely.attach(model, given)
    session.compress()
    assert session.sparsity() == {"0": {"weight": 0.5}, "2": {"weight": 0.5}}


@pytest.mark.parametrize("given", [CONFIG[0], "recipe.yaml"])
def test_what_is_no_config_list_is_refused_as_a_whole(model, given):
    with pytest.raises(tersely.ConfigError) as raised:
        tersely.prune(model, given, algorithm="toy")

    (problem,) = raised.value.problems
    assert problem.path == "pruning.config_list"
    assert f"expected {list_of_at_least(1, 'mapping')}" in problem.message
