"""Attaching instruments to modules, all or nothing, and taking them off again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from laconic.errors import AttachError
from laconic.instrument.classes import instrumented_class, is_instrumented
from laconic.instrument.instruments import Instruments
from laconic.instrument.names import INSTRUMENTS, PREFIX, mask_buffer
from laconic.planning.classes import ORIGINAL

Attachments = dict[nn.Module, type[nn.Module]]
"""Every instrumented module and the class it had before."""


def attach_instruments(
    wanted: Mapping[nn.Module, Instruments], name_of: Callable[[nn.Module], str]
) -> Attachments:
    """Instrument modules in place.

    Args:
        wanted: what each module shall do.
        name_of: a module's name, asked for when there is an error to tell.

    Returns:
        What `detach_instruments` needs to undo it.

    Raises:
        AttachError: a module cannot be instrumented; all modules are as they were.
    """
    for module, instruments in wanted.items():
        problem = _problem(module, instruments)
        if problem:
            raise AttachError(f"{_shown(name_of(module))} {problem}")
    done: Attachments = {}
    made: dict[tuple[type[nn.Module], int], type[nn.Module]] = {}
    try:
        for module, instruments in wanted.items():
            cls = type(module)
            key = (cls, id(instruments))
            if key not in made:
                made[key] = instrumented_class(
                    cls, frozenset(instruments.parameters), instruments.has_sites
                )
            # nn.Module's own __setattr__ looks for parameters and modules first, ten times slower.
            object.__setattr__(module, "__class__", made[key])
            module.__dict__[INSTRUMENTS] = instruments
            done[module] = cls
    except BaseException as error:
        detach_instruments(done)
        if isinstance(error, TypeError):
            raise AttachError(
                f"{_shown(name_of(module))} cannot take another class: {error}; leave it out with "
                f"exclude_op_names"
            ) from error
        raise
    return done


def _shown(name: str) -> str:
    return repr(name) if name else "the root module"


def _problem(module: nn.Module, instruments: Instruments) -> str | None:
    if is_instrumented(module):
        return (
            "is already attached to a session; call finalize() or detach() on that session first, "
            "or put all stages into one recipe"
        )
    if isinstance(module, torch.jit.ScriptModule):
        return (
            "is a TorchScript module, which cannot be instrumented; compress the module before "
            "torch.jit.script or torch.jit.trace"
        )
    for target in instruments.parameters:
        if mask_buffer(target) in module._buffers:
            return f"has a buffer {mask_buffer(target)!r}; names in {PREFIX}* are reserved"
    if instruments.has_sites and "forward" in module.__dict__:
        return (
            "has a forward assigned to the instance, which would go around its input and output "
            "targets; remove that assignment (hooks of other tools) before attaching"
        )
    return None


def detach_instruments(attachments: Attachments, *, keep: Iterable[nn.Module] = ()) -> None:
    """Give modules back their class and remove everything laconic added to them.

    Args:
        attachments: what `attach_instruments` returned.
        keep: modules that stay as they are.
    """
    kept = set(keep)
    for module, cls in attachments.items():
        if module in kept:
            continue
        object.__setattr__(module, "__class__", _without_instruments(type(module), cls))
        module.__dict__.pop(INSTRUMENTS, None)
        for name in [name for name in module._buffers if name.startswith(PREFIX)]:
            del module._buffers[name]


def _without_instruments(current: type[nn.Module], original: type[nn.Module]) -> type[nn.Module]:
    if ORIGINAL in current.__dict__:
        return original
    # fully_shard after attach made a class on top of ours; the same class goes on top of theirs.
    bases = tuple(original if ORIGINAL in base.__dict__ else base for base in current.__bases__)
    body = {
        key: value
        for key, value in current.__dict__.items()
        if key not in ("__dict__", "__weakref__")
    }
    made: type[nn.Module] = type(current)(current.__name__, bases, body)
    return made
