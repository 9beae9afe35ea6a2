"""Default targets of modules that keep the matrices of many experts in one parameter."""

from __future__ import annotations

from collections.abc import Sequence

from tersely.registry.core_face import QUANTIZED, RANKED, aligned_along
from tersely.registry.descriptors import ModuleSetting


def experts_setting(
    module_type: str, weights: Sequence[str], *, transposed: bool = False
) -> ModuleSetting:
    """Return the module setting of a type whose parameters stack one matrix for each expert.

    A parameter that is named like a weight with ``_bias`` after it holds one bias for each expert.

    Args:
        module_type: the class name or its dotted path.
        weights: the parameters of shape (experts, outputs, inputs).
        transposed: whether their shape is (experts, inputs, outputs).

    Returns:
        What `tersely.register_module_setting` takes.
    """
    output_dim, input_dim = (2, 1) if transposed else (1, 2)
    biases = {f"{weight}_bias": aligned_along(weight, [0, output_dim]) for weight in weights}
    names = (*weights, *biases)
    return ModuleSetting(
        module_type=module_type,
        pruning={**dict.fromkeys(weights, RANKED), **biases},
        quantization=dict.fromkeys((*names, "_input_", "_output_"), QUANTIZED),
        output_dim=output_dim,
        input_dim=input_dim,
        experts=names,
    )
