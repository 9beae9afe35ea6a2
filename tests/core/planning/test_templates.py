"""Default targets: every layer of torch.nn has them, others are told to name theirs."""

import inspect
import warnings

import pytest
from torch import nn

import tersely

# The longest beginning of a class's name says what it takes.
ARGUMENTS = {
    "": (4, 6),
    "AdaptiveLogSoftmaxWithLoss": (4, 6, [2, 4]),
    "BatchNorm": (4,),
    "Bilinear": (2, 3, 4),
    "Conv": (4, 6, 3),
    "Embedding": (5, 4),
    "GroupNorm": (2, 4),
    "InstanceNorm": (4,),
    "LayerNorm": (4,),
    "Lazy": (),
    "LazyConv": (4, 3),
    "LazyLinear": (4,),
    "MultiheadAttention": (4, 2),
    "PReLU": (),
    "RMSNorm": (4,),
    "SyncBatchNorm": (4,),
    "TransformerDecoderLayer": (4, 2, 8),
    "TransformerEncoderLayer": (4, 2, 8),
}
MORE_ARGUMENTS = {"InstanceNorm": {"affine": True}, "MultiheadAttention": {"add_bias_kv": True}}

# Layers whose parameters deliberately are no default targets.
EXCEPTIONS = {
    ("pruning", "PReLU", "weight"): "one slope per channel; an activation is pruned at its output",
    ("quantization", "PReLU", "weight"): "the same; its output is what is stored",
    **{
        (method, "MultiheadAttention", name): "appended to keys and values, not multiplied"
        for method in ("pruning", "quantization")
        for name in ("bias_k", "bias_v")
    },
}


def arguments_of(name):
    starts = (start for start in ARGUMENTS if name.startswith(start))
    return ARGUMENTS[max(starts, key=len, default="")]


def layers_with_parameters():
    """Every class of torch.nn that has parameters of its own, and a module of it."""
    found = []
    for name, cls in sorted(vars(nn).items()):
        is_layer = inspect.isclass(cls) and issubclass(cls, nn.Module)
        if not is_layer or name.endswith(("Base", "Loss")) or name == "Module":
            continue
        more = next((m for start, m in MORE_ARGUMENTS.items() if name.startswith(start)), {})
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # some say that they are deprecated
                module = cls(*arguments_of(name), **more)
        except (TypeError, ValueError, AssertionError):
            continue  # paddings, pools and the like; test_no_layer_was_missed lists the rest
        if any(parameter is not None for parameter in module._parameters.values()):
            found.append(pytest.param(module, id=name))
    return found


LAYERS = layers_with_parameters()


def test_no_layer_was_missed():
    names = {parameter.id for parameter in LAYERS}

    assert names == {
        *("Linear", "LazyLinear", "Bilinear", "Embedding", "EmbeddingBag", "MultiheadAttention"),
        *(f"{lazy}Conv{kind}{n}d" for lazy in ("", "Lazy") for kind in ("", "Transpose") for n in (1, 2, 3)),
        *(f"{kind}{n}d" for kind in ("BatchNorm", "LazyBatchNorm", "InstanceNorm", "LazyInstanceNorm") for n in (1, 2, 3)),
        *("SyncBatchNorm", "GroupNorm", "LayerNorm", "RMSNorm", "PReLU"),
        *(f"{kind}{cell}" for kind in ("LSTM", "GRU", "RNN") for cell in ("", "Cell")),
    }  # fmt: skip


@pytest.mark.parametrize("method", ["pruning", "quantization"])
@pytest.mark.parametrize("module", [one for one in LAYERS if not one.id.startswith("Lazy")])
def test_every_parameter_of_a_layer_is_a_default_target(make, module, method):
    name = type(module).__name__
    plan = make(nn.Sequential(module), {"op_names": ["0"]}, method=method)
    planned = {target.target for target in plan}
    missing = {parameter for parameter, value in module._parameters.items() if value is not None}
    missing -= planned

    assert not {one for one in missing if (method, name, one) not in EXCEPTIONS}


@pytest.mark.parametrize("method", ["pruning", "quantization"])
@pytest.mark.parametrize("module", [one for one in LAYERS if one.id.startswith("Lazy")])
def test_a_lazy_layer_has_the_default_targets_of_its_grown_up_class(registry, module, method):
    settings = {one.module_type: one for one in registry.module_settings()}
    lazy = settings[f"torch.nn.{type(module).__name__}"]
    grown = settings[f"torch.nn.{type(module).__name__.removeprefix('Lazy')}"]

    assert getattr(lazy, method) == getattr(grown, method)
    assert (lazy.output_dim, lazy.channels_first) == (grown.output_dim, grown.channels_first)


@pytest.mark.parametrize(
    "name",
    ["ReLU", "GELU", "Softmax", "SiLU", "Sigmoid", "Tanh", "Hardswish", "MaxPool2d", "AvgPool1d"],
)
def test_an_activation_or_pool_is_quantized_at_both_ends_and_pruned_at_its_output(make, name):
    model = nn.Sequential(getattr(nn, name)(*((2,) if "Pool" in name else ())))

    quantized = make(model, {"op_names": ["0"]}, method="quantization")
    pruned = make(model, {"op_names": ["0"], "sparse_ratio": 0.5})

    assert [target.target for target in quantized] == ["_input_", "_output_"]
    assert [target.target for target in pruned] == ["_output_"]


@pytest.mark.parametrize(
    ("module", "output_dim", "input_dim", "channel_dim"),
    [
        (nn.Linear(2, 2), 0, 1, -1),
        (nn.Conv1d(2, 2, 1), 0, 1, 1),
        (nn.ConvTranspose2d(2, 2, 1), 1, 0, 1),
        (nn.Embedding(2, 2), 1, 0, -1),
        (nn.BatchNorm1d(2), 0, 1, 1),
        (nn.InstanceNorm2d(2, affine=True), 0, 1, 1),
        (nn.GroupNorm(1, 2), 0, 1, 1),
        (nn.LayerNorm(2), 0, 1, -1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_a_layer_knows_where_its_channels_are(make, module, output_dim, input_dim, channel_dim):
    entry = {"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.5}
    target = make(nn.Sequential(module), entry).targets[0]

    assert (target.output_dim, target.input_dim) == (output_dim, input_dim)
    assert target.channel_dim == channel_dim


def test_a_subclass_has_the_channels_of_its_base_and_no_default_targets(make, problems):
    class Upsample(nn.ConvTranspose2d):
        pass

    model = nn.Sequential(Upsample(2, 4, 3))
    entry = {"op_names": ["0"], "sparse_ratio": 0.5}

    assert make(model, {**entry, "target_names": ["weight"]}).targets[0].output_dim == 1
    assert problems(model, entry) == [
        "pruning.config_list[0]: module '0' has type Upsample, which has no default targets for "
        "pruning; write target_names: [weight, bias] in this entry, leave the type out with "
        "exclude_op_types: [Upsample], or give the type defaults with "
        "tersely.register_module_setting"
    ]


def test_a_type_without_default_targets_is_told_once(problems):
    model = nn.Sequential(nn.Dropout(), nn.Dropout(), nn.Flatten())

    assert problems(model, {"op_names_re": ["."]}, method="quantization") == [
        "quantization.config_list[0]: module '0' has type Dropout, which has no default targets for "
        "quantization; write target_names: [_output_] in this entry, leave the type out with "
        "exclude_op_types: [Dropout], or give the type defaults with "
        "tersely.register_module_setting",
        "quantization.config_list[0]: module '2' has type Flatten, which has no default targets for "
        "quantization; write target_names: [_output_] in this entry, leave the type out with "
        "exclude_op_types: [Flatten], or give the type defaults with "
        "tersely.register_module_setting",
    ]


def test_the_root_without_default_targets_is_called_the_root(problems, net):
    assert problems(net, {"op_names": [""], "sparse_ratio": 0.5})[0].startswith(
        "pruning.config_list[0]: the root module has type Net, which"
    )


def test_any_module_can_be_distilled_at_its_output(make, net):
    plan = make(net, {"op_names": ["", "act"]}, method="distillation")

    assert [target.name for target in plan] == ["_output_", "act._output_"]


def test_recurrent_layers_of_one_entry_may_differ_in_depth(make):
    model = nn.Sequential(nn.GRU(2, 2, bias=False), nn.GRU(2, 2, num_layers=2, bias=False))
    plan = make(model, {"op_types": ["GRU"], "sparse_ratio": 0.5})

    assert [target.name for target in plan] == [
        *("0.weight_ih_l0", "0.weight_hh_l0"),
        *("1.weight_ih_l0", "1.weight_hh_l0", "1.weight_ih_l1", "1.weight_hh_l1"),
    ]


def test_a_recurrent_bias_follows_the_weight_of_its_own_layer_and_direction(make):
    model = nn.Sequential(nn.LSTM(2, 3, bidirectional=True))
    plan = make(model, {"op_types": ["LSTM"], "sparse_ratio": 0.5})
    follows = {one.target: one.setting.align.target_name for one in plan if "bias" in one.target}

    assert follows == {
        "bias_ih_l0": "weight_ih_l0",
        "bias_hh_l0": "weight_hh_l0",
        "bias_ih_l0_reverse": "weight_ih_l0_reverse",
        "bias_hh_l0_reverse": "weight_hh_l0_reverse",
    }


def test_a_mistake_in_many_recurrent_layers_is_told_once(problems):
    model = nn.Sequential(nn.LSTM(2, 2), nn.LSTM(2, 2), nn.LSTM(2, 2, num_layers=2))
    entry = {"op_types": ["LSTM"], "sparse_ratio": 0.5}
    entry["target_settings"] = {"weight_ih_l0": {"sparse_threshold": 0.1}}

    assert len(problems(model, entry)) == 1


def test_a_plugin_gives_a_type_its_default_targets(make, register):
    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.core = nn.Parameter(nn.Linear(2, 2).weight.detach())

    setting = tersely.ModuleSetting(module_type="Mixer", pruning={"core": {"sparse_ratio": None}})
    register(tersely_module_settings=[setting])

    plan = make(nn.Sequential(Mixer()), {"op_types": ["Mixer"], "sparse_ratio": 0.5})

    assert [(target.name, target.setting.to_dict()) for target in plan] == [
        ("0.core", {"sparse_ratio": 0.5})
    ]


def test_a_setting_registered_by_the_user_wins_over_the_core_and_plugins(make, register, net):
    ranked = {"weight": {"sparse_ratio": 0.1, "granularity": "rows"}}
    plugin = tersely.ModuleSetting(module_type="torch.nn.Linear", pruning={"bias": {}})
    register(tersely_module_settings=[plugin])
    tersely.register_module_setting(tersely.ModuleSetting(module_type="Linear", pruning=ranked))

    plan = make(net, {"op_names": ["fc1"]})

    assert [(target.target, target.setting.to_dict()) for target in plan] == [
        ("weight", ranked["weight"])
    ]


def test_a_setting_for_one_method_leaves_the_others_in_force(make, net):
    ranked = {"weight": {"sparse_ratio": None}}
    tersely.register_module_setting(tersely.ModuleSetting(module_type="Linear", pruning=ranked))

    plan = make(net, {"op_names": ["fc1"]}, method="quantization")

    assert [target.target for target in plan] == ["weight", "bias", "_input_", "_output_"]


def test_the_template_of_a_plugin_is_not_changed_by_planning(make, net):
    follow = {"align": {"module_name": None, "target_name": "weight", "dims": [0]}}
    targets = {"weight": {"sparse_ratio": None}, "bias": follow}
    tersely.register_module_setting(tersely.ModuleSetting(module_type="Linear", pruning=targets))

    plan = make(net, {"op_names": ["fc1"], "sparse_ratio": 0.5})
    plan.targets[1].setting.to_dict()["align"]["dims"].append(9)

    assert targets["weight"] == {"sparse_ratio": None}
    assert follow["align"]["dims"] == [0]
