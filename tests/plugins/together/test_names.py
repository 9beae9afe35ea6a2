"""Qualified names behave as short ones, and plugins of the same names break no default."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

import tersely

LINEAR = [{"op_types": ["Linear"], "sparse_ratio": 0.5}]


class Zeros:
    def importance(self, target):
        return torch.zeros_like(target.tensor)


class Halves:
    def blocks(self, shape, target):
        raise AssertionError("the official granularity is meant")


def mse(student, teacher):
    raise AssertionError("the official loss is meant")


class Usurper:
    """Provides everything that the core names by itself, and templates of torch.nn."""

    @tersely.hookimpl
    def tersely_pruners(self):
        return [tersely.PrunerInfo(name="l1_norm", implementation="usurper:Zeros")]

    @tersely.hookimpl
    def tersely_quantizers(self):
        return [tersely.QuantizerInfo(name="ptq", implementation="usurper:Zeros")]

    @tersely.hookimpl
    def tersely_distillation_losses(self):
        return [tersely.LossInfo(name="mse", implementation="usurper:mse")]

    @tersely.hookimpl
    def tersely_granularities(self):
        values = {"type": "string", "pattern": "^[0-9]+:[0-9]+$"}
        return [
            tersely.GranularityInfo(name="n_m", implementation="usurper:Halves", values=values),
            tersely.GranularityInfo(name="element", implementation="usurper:Halves"),
        ]

    @tersely.hookimpl
    def tersely_module_settings(self):
        return [tersely.ModuleSetting(module_type="Linear", pruning={"bias": {}})]


@pytest.fixture
def usurped():
    """Install a plugin that takes the names of the core's defaults."""
    module = ModuleType("usurper")
    vars(module).update(Zeros=Zeros, Halves=Halves, mse=mse)
    sys.modules["usurper"] = module
    tersely.registry().register(Usurper(), name="usurper")
    yield
    tersely.registry().unregister("usurper")
    del sys.modules["usurper"]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 4))


@pytest.mark.usefixtures("usurped")
def test_prune_takes_its_own_default(model):
    session = tersely.prune(model, LINEAR)
    expected = model[0].weight.detach().abs().sum(1)

    assert session.plan.targets[0].algorithm == "l1_norm"
    kept = session.masks()["0"]["weight"].all(1)
    dense = session.detach()[0].weight.detach().abs().sum(1)
    assert kept.sum() == 2
    assert dense[kept].min() >= dense[~kept].max()
    assert expected.shape == (4,)


@pytest.mark.usefixtures("usurped")
def test_quantize_takes_its_own_default(model):
    entry = {"op_types": ["Linear"], "target_names": ["weight"]}
    session = tersely.quantize(model, [entry])

    assert session.qparams()["0"]["weight"].scale.numel() == 1


@pytest.mark.usefixtures("usurped")
def test_distill_takes_its_own_default(model):
    teacher = nn.Sequential(nn.Linear(8, 4))
    session = tersely.distill(model, [{"op_types": ["Linear"]}], teacher=teacher)
    inputs = torch.randn(3, 8)
    expected = (model(inputs) - teacher(inputs)).square().mean()
    session.teacher_forward(inputs)

    torch.testing.assert_close(session.loss(), expected)


@pytest.mark.usefixtures("usurped")
def test_a_spelling_of_the_specification_stays_with_its_distribution(model):
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "granularity": "2:4"}
    session = tersely.prune(model, [entry], algorithm="level")

    assert session.sparsity()["0"]["weight"] == 0.5


@pytest.mark.usefixtures("usurped")
def test_a_granularity_called_as_one_of_the_cores_own_does_not_replace_it(model):
    session = tersely.prune(model, LINEAR, algorithm="level")

    assert session.sparsity()["0"]["weight"] == 0.5


@pytest.mark.usefixtures("usurped")
def test_the_templates_of_torch_stay_the_cores(model):
    plan = tersely.plan(model, {"pruning": {"algorithm": "level", "config_list": LINEAR}})

    assert [target.target for target in plan] == ["weight", "bias"]


@pytest.mark.usefixtures("usurped")
def test_a_session_with_a_default_loss_can_be_loaded_after_another_plugin_came(model, tmp_path):
    teacher = nn.Sequential(nn.Linear(8, 4))
    session = tersely.distill(model, [{"op_types": ["Linear"]}], teacher=teacher)
    session.save(tmp_path / "session")
    again = tersely.load_session(session.detach(), tmp_path / "session", teacher=teacher)

    assert again.plan.targets[0].algorithm == "mse"


@pytest.mark.parametrize("name", ["per_channel", "tersely-granularity:per_channel"])
def test_channels_of_outputs_are_pruned_whatever_the_size_of_an_image(name):
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    entry = {"op_types": ["Conv2d"], "target_names": ["_output_"], "granularity": name}
    stage = {"algorithm": "l1_norm", "config_list": [{**entry, "sparse_ratio": 0.5}]}
    session = tersely.attach(model, {"pruning": stage})
    session.calibrate([torch.randn(2, 3, 8, 8), torch.randn(2, 3, 12, 12)])
    session.compress()

    assert model(torch.randn(1, 3, 10, 10)).shape == (1, 4, 8, 8)


@pytest.mark.parametrize("name", ["per_channel", "tersely-granularity:per_channel"])
def test_channels_of_outputs_are_quantized_whatever_the_size_of_an_image(name):
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    entry = {"op_types": ["Conv2d"], "target_names": ["_output_"], "granularity": name}
    data = [torch.randn(2, 3, 8, 8), torch.randn(2, 3, 12, 12)]
    session = tersely.quantize(model, [entry], data=data)

    assert session.qparams()["0"]["_output_"].scale.shape == (1, 4, 1, 1)


@pytest.mark.parametrize("name", ["level", "tersely-pruning:level"])
def test_a_plan_shows_the_short_name_of_an_algorithm(model, name):
    plan = tersely.plan(model, {"pruning": {"algorithm": name, "config_list": LINEAR}})

    assert {target.algorithm for target in plan} == {"level"}


def test_a_qualified_quantizer_reports_its_own_integers():
    model = nn.Sequential(nn.Linear(8, 4))
    entry = {"op_types": ["Linear"], "target_names": ["weight"]}
    reports = [
        tersely.quantize(model_, [entry], algorithm=name).report().to_dict()
        for name, model_ in (
            ("bnn", model),
            ("tersely-quantization:bnn", nn.Sequential(nn.Linear(8, 4))),
        )
    ]

    assert reports[0]["rows"][0]["dtype"] == reports[1]["rows"][0]["dtype"]
