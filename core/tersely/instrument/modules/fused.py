"""PyTorch's fused encoder layer, which computes without calling its parts, and how it is kept off.

In eval mode ``nn.TransformerEncoderLayer`` hands the weights of its parts to one kernel. Masked
weights are effective there, but the inputs and outputs of the parts never exist. The layer itself
leaves the kernel aside as soon as one of its parts has a hook. ``nn.TransformerEncoder`` does not
look for hooks: where there is a padding mask it hands nested tensors to its layers, which only the
kernel can read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from tersely.instrument.instruments import Instruments
from tersely.instrument.modules.classes import instruments_of
from tersely.instrument.modules.nesting import FLAG


def with_encoders(
    wanted: Mapping[nn.Module, Instruments], modules: Sequence[nn.Module]
) -> dict[nn.Module, Instruments]:
    """Return instruments with the encoders added around modules that have some.

    Args:
        wanted: what each module shall do.
        modules: all modules of the model.
    """
    found = dict(wanted)
    for encoder in encoders_around(modules, wanted):
        found.setdefault(encoder, Instruments())
    return found


def encoders_around(
    modules: Sequence[nn.Module], parts: Collection[nn.Module]
) -> Iterator[nn.TransformerEncoder]:
    """Yield the encoders that have some modules inside.

    Args:
        modules: where to look for encoders.
        parts: the modules.
    """
    classes = {cls for cls in set(map(type, modules)) if issubclass(cls, nn.TransformerEncoder)}
    for module in modules if classes else ():
        if isinstance(module, nn.TransformerEncoder) and any(
            part is not module and part in parts for part in module.modules()
        ):
            yield module


@contextlib.contextmanager
def without_nested_tensors(encoders: Collection[nn.Module]) -> Iterator[None]:
    """Let encoders compute padded positions, as they do in training, inside the block.

    Args:
        encoders: they are `torch.nn.TransformerEncoder`.
    """
    restore = keep_nested_tensors_out(encoders)
    try:
        yield
    finally:
        restore()


def keep_nested_tensors_out(encoders: Collection[nn.Module]) -> Callable[[], None]:
    """Make encoders compute padded positions; return what undoes it, which may be copied with them.

    Args:
        encoders: as `encoders_around` returns them.
    """
    before = {one: one.__dict__[FLAG] for one in encoders if FLAG in one.__dict__}
    for one in before:
        one.__dict__[FLAG] = False
    return partial(_restore, before)


def _restore(flags: Mapping[nn.Module, bool]) -> None:
    for one, flag in flags.items():
        one.__dict__[FLAG] = flag


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
