"""What a plan asks of a target, typed: defaults filled, keys kept, one object for targets alike."""

import attrs
import pytest
from torch import nn

import tersely
from tersely.contracts.settings import (
    Align,
    DistillationSetting,
    PruningSetting,
    QuantizationSetting,
)


def test_a_pruning_setting_fills_what_is_not_written():
    setting = PruningSetting.of({"sparse_ratio": 0.5, "max_sparse_ratio": None})

    assert (setting.min_sparse_ratio, setting.max_sparse_ratio) == (0, 1)
    assert (setting.internal_metric_block, setting.mask_value) == (1, -1000.0)
    assert (setting.granularity, setting.apply_method) == ("default", "mul")


def test_a_quantization_setting_takes_the_scheme_of_its_algorithm():
    setting = QuantizationSetting.of({"quant_dtype": None}, default_scheme="affine")

    assert (setting.quant_dtype, setting.quant_scheme) == ("int8", "affine")


def test_a_scheme_that_is_written_counts():
    setting = QuantizationSetting.of({"quant_scheme": "symmetric"}, default_scheme="affine")

    assert setting.quant_scheme == "symmetric"


def test_a_distillation_setting_reads_its_loss_with_options():
    setting = DistillationSetting.of({"apply_method": {"kl": {"temperature": 4}}, "link": "a"})

    assert (setting.weight, setting.loss, setting.loss_options) == (1.0, "kl", {"temperature": 4})
    assert setting.links_of("own") == ("a",)


def test_without_a_link_a_target_learns_from_its_own_name():
    assert DistillationSetting.of({}).links_of("layer4") == ("layer4",)


def test_an_align_names_its_source_in_the_module_of_the_follower():
    assert Align("weight", [0]).source_name("fc") == "fc.weight"
    assert Align("weight", [0], "").source_name("fc") == "weight"


def test_a_setting_gives_its_keys_back_as_they_were_written():
    keys = {"align": {"target_name": "weight", "dims": [0]}, "apply_method": "mul", "x": None}

    assert PruningSetting.of(keys).to_dict() == keys


def test_settings_that_mean_the_same_are_equal():
    assert PruningSetting.of({"min_sparse_ratio": None}) == PruningSetting.of({})


def test_a_changed_copy_of_the_keys_changes_no_setting():
    setting = PruningSetting.of({"granularity": {"group": 4}})
    setting.to_dict()["granularity"]["group"] = 8

    assert setting.granularity == {"group": 4}


def test_a_setting_refuses_assignment():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        PruningSetting.of({}).sparse_ratio = 0.5


def test_a_target_of_another_method_is_told(make, net):
    [target] = make(net, {"op_names": ["fc1"], "target_names": ["weight"], "sparse_ratio": 0.5})
    with pytest.raises(TypeError) as caught:
        _ = target.quantization

    assert str(caught.value) == "fc1.weight is planned for pruning, not for quantization"


def test_targets_alike_share_one_setting_also_after_json(make):
    model = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(3)))
    plan = make(model, {"op_types": ["Linear"], "sparse_ratio": 0.5})
    again = tersely.Plan.from_dict(plan.to_dict())

    assert len({id(one.setting) for one in plan}) == 1
    assert len({id(one.setting) for one in again}) == 1
