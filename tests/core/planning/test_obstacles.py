"""Why a parameter, buffer or argument cannot be a target, each in a full message."""

import pytest
import torch
from messages.planning import NO_SUCH_ARGUMENT
from torch import nn
from torch.nn.utils import prune

import tersely

RATIO = {"sparse_ratio": 0.5}


class Holder(nn.Module):
    """A buffer of integers and a forward of every sort of argument."""

    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.zeros(3, dtype=torch.int64))

    def forward(self, x, mask=None, *, scale=1.0):
        return x


@pytest.fixture
def holder():
    return nn.Sequential(Holder())


def test_a_parameter_that_does_not_exist_is_an_error_with_the_nearest_name(problems, net):
    assert problems(net, {"op_names": ["fc1"], "target_names": ["weigth"], **RATIO}) == [
        "pruning.config_list[0]: fc1.weigth: Linear has no parameter or buffer 'weigth'; it has "
        "weight, bias, and its inputs and outputs are written _input_ and _output_; did you mean "
        "'weight'?"
    ]


def test_a_problem_of_one_target_carries_the_target_its_entry_and_the_algorithm(make, net):
    with pytest.raises(tersely.PlanError) as caught:
        make(net, {"op_names": ["fc1"], "target_names": ["weigth"], **RATIO})

    error = caught.value
    assert (error.target, error.path) == ("fc1.weigth", "pruning.config_list[0]")
    assert error.algorithm == "element"


def test_a_problem_of_several_targets_carries_their_entry_alone(make, linears):
    with pytest.raises(tersely.PlanError) as caught:
        make(linears(3), {"op_types": ["Linear"], "target_names": ["gamma"], **RATIO})

    assert (caught.value.target, caught.value.path) == (None, "pruning.config_list[0]")


def test_one_mistake_in_many_modules_is_one_problem(problems, linears):
    entry = {"op_types": ["Linear"], "target_names": ["gamma"], **RATIO}

    assert problems(linears(3), entry) == [
        "pruning.config_list[0]: 0.gamma and 2 more: Linear has no parameter or buffer 'gamma'; it "
        "has weight, bias, and its inputs and outputs are written _input_ and _output_"
    ]


def test_a_module_without_parameters_says_so(problems, net):
    assert problems(net, {"op_names": ["act"], "target_names": ["weight"], **RATIO}) == [
        "pruning.config_list[0]: act.weight: ReLU has no parameter or buffer 'weight'; it has none, "
        "and its inputs and outputs are written _input_ and _output_"
    ]


def test_an_integer_tensor_cannot_be_a_target(problems, holder):
    assert problems(holder, {"op_names": ["0"], "target_names": ["steps"], **RATIO}) == [
        "pruning.config_list[0]: 0.steps: it has dtype torch.int64; only floating-point tensors can "
        "be compressed"
    ]


def test_a_running_statistic_cannot_be_a_target(problems, net):
    assert problems(net, {"op_names": ["bn"], "target_names": ["running_var"], **RATIO}) == [
        "pruning.config_list[0]: bn.running_var: it is a running statistic, which forward updates "
        "in place, so a mask or rounding would be lost in training; compress weight and bias instead"
    ]


def test_a_lazy_parameter_has_no_shape_yet(problems):
    model = nn.Sequential(nn.LazyLinear(3))

    assert problems(model, {"op_types": ["LazyLinear"], "target_names": ["weight"], **RATIO}) == [
        "pruning.config_list[0]: 0.weight: it has no shape yet; run one batch through the model "
        "first"
    ]


def test_a_parametrized_weight_is_an_error_that_says_what_to_call(problems):
    layer = nn.utils.parametrizations.orthogonal(nn.Linear(2, 2))
    entry = {"op_names": ["0"], "target_names": ["weight"], **RATIO}

    assert problems(nn.Sequential(layer), entry) == [
        "pruning.config_list[0]: 0.weight: it is parametrized by torch.nn.utils.parametrize; call "
        "torch.nn.utils.parametrize.remove_parametrizations first"
    ]


def test_a_weight_held_by_the_pruning_of_torch_is_an_error_that_says_what_to_call(problems):
    layer = nn.Linear(2, 2)
    prune.random_unstructured(layer, "weight", 0.5)

    assert problems(nn.Sequential(layer), {"op_types": ["Linear"], "target_names": ["weight"]}) == [
        "pruning.config_list[0]: 0.weight: it is reparametrized by torch.nn.utils.prune; call "
        "torch.nn.utils.prune.remove first"
    ]


def test_a_weight_held_by_spectral_norm_is_an_error_that_says_what_to_call(problems):
    layer = nn.utils.spectral_norm(nn.Linear(2, 2))

    assert problems(nn.Sequential(layer), {"op_types": ["Linear"], "target_names": ["weight"]}) == [
        "pruning.config_list[0]: 0.weight: it is reparametrized by spectral_norm; call "
        "torch.nn.utils.remove_spectral_norm first"
    ]


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_a_weight_held_by_weight_norm_is_an_error_that_says_what_to_call(problems):
    layer = nn.utils.weight_norm(nn.Linear(2, 2))

    assert problems(nn.Sequential(layer), {"op_types": ["Linear"], "target_names": ["weight"]}) == [
        "pruning.config_list[0]: 0.weight: it is reparametrized by weight_norm; call "
        "torch.nn.utils.remove_weight_norm first"
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_module_is_an_error_that_says_the_order(problems):
    model = nn.Sequential(torch.jit.script(nn.Linear(2, 2)), nn.Linear(2, 2))

    assert problems(model, {"op_names": ["0", "1"], **RATIO}) == [
        "pruning.config_list[0]: module '0' is a torch.jit.ScriptModule, which cannot be changed; "
        "compress it, then script it"
    ]


def test_an_argument_by_number_must_exist(problems, net):
    assert problems(net, {"op_names": ["fc1"], "target_names": ["_input_1"], **RATIO}) == [
        "pruning.config_list[0]: fc1._input_1: forward has no argument 1; those with a position are 0"
    ]


def test_an_argument_by_name_must_exist(problems, holder):
    assert problems(holder, {"op_names": ["0"], "target_names": ["_input_y"], **RATIO}) == [
        f"pruning.config_list[0]: 0._input_y: {NO_SUCH_ARGUMENT} x, mask, scale"
    ]


def test_an_input_by_number_and_by_name_cannot_have_two_settings(problems, holder):
    entry = {"op_names": ["0"], "target_names": ["_input_0", "_input_x"], **RATIO}
    entry["target_settings"] = {"_input_x": {"sparse_ratio": 0.25}}

    assert problems(holder, entry) == [
        "pruning.config_list[0]: 0._input_x and _input_0 are one input with two settings; write one "
        "of them"
    ]


def test_what_tersely_added_to_a_module_is_no_target(problems, net):
    net.fc1.register_buffer("_tersely_weight_mask", torch.ones(6, 4))
    entry = {"op_names": ["fc1"], "target_names": ["_tersely_weight_mask"], **RATIO}

    assert problems(net, entry) == [
        "pruning.config_list[0]: fc1._tersely_weight_mask: Linear has no parameter or buffer "
        "'_tersely_weight_mask'; it has weight, bias, and its inputs and outputs are written "
        "_input_ and _output_"
    ]


def test_a_kind_of_target_that_the_algorithm_rules_out_is_an_error(problems, linears):
    entry = {"op_types": ["Linear"], "target_names": ["_output_"], **RATIO}

    assert problems(linears(2), entry, algorithm="choosy") == [
        "pruning.config_list[0]: 0._output_ and 1 more: choosy cannot be used on outputs, only on: "
        "parameter, buffer"
    ]


def test_every_problem_is_told_at_once(problems, net):
    found = problems(
        net,
        {"op_names": ["fc1"], "target_names": ["gamma"], **RATIO},
        {"op_names": ["bn"], "target_names": ["running_mean", "_input_7"], **RATIO},
        {"op_names": ["conv"], "granularity": [1, 5, 1, 1], **RATIO},
    )

    assert [problem.partition(": ")[2].partition(":")[0] for problem in found] == [
        "fc1.gamma",
        "bn.running_mean",
        "bn._input_7",
        "conv.weight",
    ]


def _torch_prune(layer):
    prune.l1_unstructured(layer, "weight", 0.25)
    return layer


def _computed_by_a_hook(layer):
    raw = layer._parameters.pop("weight")
    layer.register_parameter("weight_raw", raw)
    layer.weight = 2 * raw.data
    layer.register_forward_pre_hook(lambda one, args: setattr(one, "weight", 2 * one.weight_raw))
    return layer


class Doubled(nn.Linear):
    """Computes its weight whenever it is read."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.register_parameter("weight_raw", self._parameters.pop("weight"))

    @property
    def weight(self):
        return 2 * self.weight_raw

    @weight.setter
    def weight(self, value):
        """Let the constructor of the layer assign one."""
        self._parameters["weight"] = value


Doubled.__name__ = "Linear"


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("hold", "cls", "says"),
    [
        (nn.utils.weight_norm, nn.Linear, "reparametrized by weight_norm"),
        (nn.utils.spectral_norm, nn.Conv1d, "reparametrized by spectral_norm"),
        (_torch_prune, nn.ConvTranspose1d, "reparametrized by torch.nn.utils.prune"),
        (nn.utils.parametrizations.weight_norm, nn.Conv2d, "is parametrized"),
        (nn.utils.parametrizations.spectral_norm, nn.Linear, "is parametrized"),
        (nn.utils.parametrizations.orthogonal, nn.Linear, "is parametrized"),
        (
            _computed_by_a_hook,
            nn.Linear,
            "a tensor that .* in target_names .the module has bias, w",
        ),
    ],
)
@pytest.mark.parametrize("is_strict", [False, True])
def test_a_held_weight_is_an_error_where_only_the_type_asks_for_it(
    toy_pruners, hold, cls, says, is_strict
):
    sizes = (4, 4) if cls is nn.Linear else (4, 4, 1)
    model = nn.Sequential(hold(cls(*sizes)), cls(*sizes))
    entry = {"op_types": [cls.__name__], **RATIO}
    recipe = {"strict": is_strict, "pruning": {"algorithm": "toy", "config_list": [entry]}}

    with pytest.raises(tersely.PlanError, match=f"0.weight: it .*{says}"):
        tersely.plan(model, recipe)


def test_a_weight_that_a_property_computes_is_an_error(problems):
    (problem,) = problems(Doubled(4, 4), {"op_names": [""], "target_names": ["weight"], **RATIO})

    assert "weight: it is a tensor that the module computes or stores" in problem


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "hold", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm], ids=["old", "new"]
)
def test_a_held_weight_of_a_recurrent_layer_is_an_error(problems, hold):
    model = nn.Sequential(hold(nn.LSTM(4, 4), "weight_hh_l0"))

    (problem,) = problems(model, {"op_types": ["LSTM"], **RATIO})

    assert problem.startswith("pruning.config_list[0]: 0.weight_hh_l0: it is ")


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_a_parameter_of_no_elements_is_skipped_and_noted(make, shape):
    model = nn.Sequential(nn.Linear(4, 4), nn.Identity())
    model[1].weight = nn.Parameter(torch.empty(shape))
    entry = {
        "op_names": ["0", "1"],
        "target_names": ["weight"],
        "target_settings": {"weight": {"sparse_ratio": 0.5}},
    }
    plan = make(model, entry)
    assert [target.name for target in plan] == ["0.weight"]
    assert [str(one) for one in plan.skipped] == [
        f"1.weight is skipped: it is empty, of shape {list(shape)}"
    ]


def test_a_bias_that_follows_a_weight_of_no_elements_is_skipped_with_it(make):
    with pytest.warns(UserWarning, match="zero-element"):
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(0, 4))
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.5}
    plan = make(model, entry, algorithm="channel")
    assert [target.name for target in plan] == ["0.weight", "0.bias"]
    assert [str(one) for one in plan.skipped] == [
        "1.weight is skipped: it is empty, of shape [4, 0]",
        "1.bias is skipped: it follows weight, and the module has an empty tensor there",
    ]
