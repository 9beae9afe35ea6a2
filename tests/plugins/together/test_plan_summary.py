"""What the summary of a plan says of quantized weights."""

from torch import nn

import tersely
from tersely.reporting.printing.plan_summary import summarize_plan


def test_what_quantized_weights_will_take_is_counted_with_their_scales():
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "granularity": "per_channel"}
    model = nn.Sequential(nn.Linear(64, 10, bias=False))
    plan = tersely.plan(
        model,
        {"quantization": {"algorithm": "rtn", "config_list": [{**entry, "quant_dtype": "int8"}]}},
    )

    # 640 weights of 4 bytes; as int8 640 bytes and ten scales of 4.
    assert summarize_plan(plan, model).splitlines()[:2] == [
        "quantization: rtn",
        "  1 Linear by config_list[0]: 640 weights, 2.6 kB -> 680 B",
    ]


def test_hints_are_wrapped_and_what_is_folded_is_not_untouched():
    entry = {"op_types": ["Conv2d"], "target_names": ["weight"], "quant_dtype": "int8"}
    model = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.BatchNorm2d(4)).eval()
    stage = {"preset": "w8a8", "for": "onnxruntime"}
    folded = {"algorithm": "ptq", "config_list": [{**entry, "fuse_names": [["0", "1"]]}]}

    preset = summarize_plan(tersely.plan(model, {"quantization": stage}), model)
    fused = summarize_plan(tersely.plan(model, {"quantization": folded}), model)

    assert max(map(len, preset.splitlines())) <= 80
    assert "  quantization: preset w8a8:" in preset
    assert "untouched: nothing" in fused
