"""The projections of ``torch.nn.MultiheadAttention``, which no graph of modules shows."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

import tersely

_PACKED = ("in_proj_weight", "in_proj_bias")
_SEPARATE = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


def packed_attention(
    model: nn.Module, parameters: Sequence[str]
) -> dict[str, tersely.SharedChannels]:
    """Return what the input projections of attention modules share, by parameter name.

    Every head has to keep as many rows as the others. Rows of query, key and value that meet
    in one head are removed together: separate projections are tied to each other, a packed one
    to itself.

    Args:
        model: the model.
        parameters: names as in ``named_parameters()``.
    """
    found: dict[tuple[str, bool], list[str]] = {}
    for parameter in parameters:
        module_name, _, attribute = parameter.rpartition(".")
        module = model.get_submodule(module_name)
        if isinstance(module, nn.MultiheadAttention) and attribute in (*_PACKED, *_SEPARATE):
            found.setdefault((module_name, attribute in _PACKED), []).append(parameter)
    groups: dict[str, tersely.SharedChannels] = {}
    for (module_name, is_packed), names in found.items():
        module = model.get_submodule(module_name)
        assert isinstance(module, nn.MultiheadAttention)  # as found above
        group = tersely.SharedChannels(
            parameters=tuple(names),
            runs=module.num_heads * (3 if is_packed else 1),
            is_tied_to_itself=is_packed,
        )
        groups.update(dict.fromkeys(names, group))
    return groups
