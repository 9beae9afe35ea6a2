"""The keys of NNI 1.x and 2.x config lists, and what to write for each instead."""

from __future__ import annotations

_MIGRATE = "`tersely migrate` rewrites the list"

LEGACY_KEYS: dict[str, str] = {
    key: f"{advice}; {_MIGRATE}"
    for key, advice in {
        "op_partial_names": "write op_names_re",
        "sparsity": "write sparse_ratio",
        "sparsity_per_layer": "write sparse_ratio",
        "total_sparsity": "write sparse_ratio with a global_group_id",
        "max_sparsity_per_layer": "write max_sparse_ratio",
        "exclude": "write exclude_op_names, exclude_op_names_re or exclude_op_types",
        "quant_types": "write target_names",
        "quant_bits": "write quant_dtype",
    }.items()
}
"""Legacy key -> what to write instead."""

LEGACY_KEYS |= {
    "quant_start_step": "give it to the algorithm, in the options of the quantization stage",
    "initial_sparsity": "write a schedule in the pruning stage",
    "final_sparsity": "write sparse_ratio, and a schedule in the pruning stage",
    "start_epoch": "write a schedule with begin, every and times in the pruning stage",
    "end_epoch": "write a schedule with begin, every and times in the pruning stage",
    "frequency": "write a schedule with begin, every and times in the pruning stage",
}

LEGACY_ANY_TYPE = "default"
"""What NNI 1.x and 2.x write in ``op_types`` for every layer that has weights."""

LEGACY_TYPE_HINT = f"name the types, as in [Conv2d, Linear]; {_MIGRATE}"
