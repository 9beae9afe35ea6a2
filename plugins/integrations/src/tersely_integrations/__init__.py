"""The face of tersely-integrations: default targets of Transformers' own layers; no torch here.

The integrations themselves are modules, named after the framework that each of them imports.
"""

from __future__ import annotations

import tersely

tersely_api = 1

_RANKED = {
    "sparse_ratio": None,
    "max_sparse_ratio": None,
    "min_sparse_ratio": None,
    "sparse_threshold": None,
    "global_group_id": None,
    "dependency_group_id": None,
    "granularity": "default",
    "internal_metric_block": None,
    "apply_method": "mul",
}
_QUANTIZED = {
    "quant_dtype": "int8",
    "quant_scheme": None,
    "granularity": "default",
    "apply_method": "clamp_round",
}


@tersely.hookimpl
def tersely_module_settings() -> list[tersely.ModuleSetting]:
    """Return the settings of ``Conv1D``, a linear layer whose weight is (inputs, outputs)."""
    bias = {
        "align": {"module_name": None, "target_name": "weight", "dims": [1]},
        "apply_method": "mul",
    }
    return [
        tersely.ModuleSetting(
            module_type="transformers.pytorch_utils.Conv1D",
            pruning={"weight": _RANKED, "bias": bias},
            quantization=dict.fromkeys(("weight", "bias", "_input_", "_output_"), _QUANTIZED),
            output_dim=1,
            input_dim=0,
        )
    ]
