"""Names of tensors: files keep one of the names of a tied tensor."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

import tersely


def first_names(model: nn.Module) -> Mapping[str, str]:
    """Return each further name of a tensor -> the first one.

    Args:
        model: the session's model.
    """
    first: dict[int, str] = {}
    further = {}
    held = (
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    )
    for name, tensor in held:
        kept = first.setdefault(id(tensor), name)
        if kept != name:
            further[name] = kept
    return further


def kept_floats(source: tersely.ExportSource) -> list[str]:
    """Return the names of the tensors that are not quantized, one for each tensor.

    Args:
        source: the session.
    """
    further = first_names(source.model)
    return [name for name in source.floats if further.get(name) not in source.floats]


def module_of(source: tersely.ExportSource, name: str) -> nn.Module:
    """Return the module that a weight belongs to.

    Args:
        source: the session.
        name: the weight's full name.
    """
    return source.model.get_submodule(source.targets[name].module)


def split_name(name: str) -> tuple[str, str]:
    """Return the name of a tensor's module, and its name in the module.

    Args:
        name: the full name.
    """
    module, _, own = name.rpartition(".")
    return module, own
