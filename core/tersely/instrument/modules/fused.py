"""PyTorch's fused encoder layer, which computes without calling its parts, and how it is kept off.

In eval mode ``nn.TransformerEncoderLayer`` hands the weights of its parts to one kernel. Masked
weights are effective there, but the inputs and outputs of the parts never exist. The layer itself
leaves the kernel aside as soon as one of its parts has a hook.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

from tersely.instrument.modules.classes import instruments_of


def keep_fused_layers_off(
    modules: Sequence[nn.Module], instrumented: Collection[nn.Module]
) -> None:
    """Make encoder layers call their parts where inputs or outputs of these parts are targets.

    Args:
        modules: all modules of the model.
        instrumented: those that carry instruments.
    """
    classes = {
        cls for cls in set(map(type, modules)) if issubclass(cls, nn.TransformerEncoderLayer)
    }
    if not classes:
        return
    for layer in modules:
        if type(layer) in classes:
            for part in layer.modules():
                if part is layer or part not in instrumented:
                    continue
                if instruments_of(part).has_sites and not hooks_of(part):
                    part.register_forward_pre_hook(_is_called)


def remove_hooks(module: nn.Module) -> None:
    """Take off what `keep_fused_layers_off` put on a module.

    Args:
        module: any module.
    """
    for key in hooks_of(module):
        del module._forward_pre_hooks[key]


def hooks_of(module: nn.Module) -> dict[int, Any]:
    """Return what `keep_fused_layers_off` put on a module, by the hooks' numbers.

    Args:
        module: any module.
    """
    return {key: hook for key, hook in module._forward_pre_hooks.items() if hook is _is_called}


def _is_called(module: nn.Module, args: object) -> None:
    """Do nothing; that there is a hook is what matters."""
