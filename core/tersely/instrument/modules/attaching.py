"""Attaching instruments to modules, all or nothing, and taking them off again."""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterable, Mapping
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from tersely.errors import AttachError
from tersely.instrument.instruments import Instruments
from tersely.instrument.modules.classes import instrumented_class
from tersely.instrument.modules.fused import remove_hooks
from tersely.instrument.names import INSTRUMENTS, NAME, PREFIX
from tersely.planning.selecting.classes import ORIGINAL

Attachments = dict[nn.Module, type[nn.Module]]
"""Every instrumented module and the class it had before."""


def attach_instruments(
    wanted: Mapping[nn.Module, Instruments], name_of: Callable[[nn.Module], str]
) -> Attachments:
    """Instrument modules in place.

    Args:
        wanted: what each module shall do.
        name_of: returns a module's name, for errors.

    Returns:
        What `detach_instruments` needs to undo it.

    Raises:
        AttachError: a module cannot be instrumented; all modules are as they were.
    """
    _refuse_problems(wanted, name_of)
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
            done[module] = cls
            module.__dict__[INSTRUMENTS] = instruments
            module.__dict__[NAME] = name_of(module)
            # nn.Module's own __setattr__ looks for parameters and modules first, ten times slower.
            object.__setattr__(module, "__class__", made[key])
    except Exception as error:  # foreign code: metaclasses and __init_subclass__ run here
        detach_instruments(done)
        raise AttachError(
            f"{_shown(name_of(module))} cannot take another class: {type(error).__name__}: "
            f"{error}; leave it out with exclude_op_names",
            target=name_of(module),
        ) from error
    except BaseException:
        detach_instruments(done)
        raise
    return done


def is_attachable(module: nn.Module) -> bool:
    """Tell whether a module's forward can be processed.

    Args:
        module: the module, not instrumented.
    """
    problem = _class_problem(type(module), True) or _problem(module, has_sites=True)
    return problem is None


def _shown(name: str) -> str:
    return repr(name) if name else "the root module"


def _refuse_problems(
    wanted: Mapping[nn.Module, Instruments], name_of: Callable[[nn.Module], str]
) -> None:
    # Modules alike share their instruments.
    alike: dict[tuple[type[nn.Module], int], tuple[bool, str | None]] = {}
    for module, instruments in wanted.items():
        key = (type(module), id(instruments))
        if key not in alike:
            has_sites = instruments.has_sites
            alike[key] = (has_sites, _class_problem(type(module), has_sites))
        has_sites, problem = alike[key]
        problem = problem or _problem(module, has_sites=has_sites)
        problem = problem or _inference_problem(module, instruments)
        if problem:
            raise AttachError(f"{_shown(name_of(module))} {problem}", target=name_of(module))


def _class_problem(cls: type[nn.Module], has_sites: bool) -> str | None:
    if issubclass(cls, torch.jit.ScriptModule):
        return (
            "is a TorchScript module, which cannot be instrumented; compress the module before "
            "torch.jit.script or torch.jit.trace"
        )
    if has_sites and issubclass(cls, NonDynamicallyQuantizableLinear):
        return (
            "is never called: MultiheadAttention reads its weight and bias and computes by itself; "
            "take the attention's own _output_ instead"
        )
    method = method_with_super_of_self(cls)
    if method is not None:
        return (
            "has a method that calls super() of self.__class__ or type(self), which recurses "
            "without end in a subclass such as the one that tersely creates; write super() without "
            f"arguments in {method}"
        )
    return None


def _problem(module: nn.Module, *, has_sites: bool) -> str | None:
    attributes = module.__dict__
    if INSTRUMENTS in attributes:
        return (
            "is instrumented already; call finalize() or detach() on the session that did it, or "
            "put all stages into one recipe. A finalized module keeps its input and output masks, "
            "and a copy of an attached model has no session: start from the model as it was built"
        )
    for name in attributes["_buffers"]:
        if name.startswith(PREFIX):
            return f"has a buffer {name!r}; names in {PREFIX}* are reserved, rename it"
    if has_sites and "forward" in attributes:
        return (
            "has a forward assigned to the instance, which would bypass its input and output "
            "targets; remove that assignment (hooks of other tools) before attaching"
        )
    return None


def _inference_problem(module: nn.Module, instruments: Instruments) -> str | None:
    parameters, buffers = module._parameters, module._buffers
    # Of modules that are folded together everything changes, target or not.
    is_folding = instruments.fold is not None or instruments.is_folded or instruments.has_room
    for name in (*parameters, *buffers) if is_folding else instruments.parameters:
        tensor: Tensor | None = parameters.get(name)
        if tensor is None:
            tensor = buffers.get(name)
        if tensor is not None and tensor.is_inference():
            return (
                f"has {name!r}, which was created in inference mode and cannot be changed; attach "
                "to copy.deepcopy(model), made outside of inference mode, or build the model "
                "outside of it"
            )
    return None


def detach_instruments(attachments: Attachments, *, keep: Iterable[nn.Module] = ()) -> None:
    """Give modules back their class and remove everything tersely added to them.

    Args:
        attachments: what `attach_instruments` returned.
        keep: modules that stay as they are.
    """
    kept = set(keep)
    for module, cls in attachments.items():
        if module in kept:
            continue
        object.__setattr__(module, "__class__", replace_class(type(module), cls))
        for name in [name for name in module.__dict__ if name.startswith(PREFIX)]:
            del module.__dict__[name]
        if module._forward_pre_hooks:
            remove_hooks(module)
        for name in [name for name in module._buffers if name.startswith(PREFIX)]:
            del module._buffers[name]
            module._non_persistent_buffers_set.discard(name)


def replace_class(current: type[nn.Module], replacement: type[nn.Module]) -> type[nn.Module]:
    """Return a module's class with another one in the place of the one tersely made.

    Args:
        current: the class of an instrumented module.
        replacement: the class the user wrote, or another one that tersely made of it.
    """
    if current is replacement or ORIGINAL in current.__dict__:
        return replacement
    # fully_shard after attach made a class derived from ours; ours is now derived from theirs.
    bases = tuple(replacement if ORIGINAL in base.__dict__ else base for base in current.__bases__)
    body = {
        key: value
        for key, value in current.__dict__.items()
        if key not in ("__dict__", "__weakref__")
    }
    metaclass: Any = type(current)
    made: type[nn.Module] = metaclass(current.__name__, bases, body)
    return made


def method_with_super_of_self(cls: type[nn.Module]) -> str | None:
    """Return the qualified name of a method that asks for the class above an object's own.

    ``__init__`` may do so: an object that exists is not made again.

    Args:
        cls: the user's class.
    """
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] == "torch" or base is object:
            continue
        for name, value in base.__dict__.items():
            code = getattr(value, "__code__", None)
            if name != "__init__" and isinstance(code, CodeType) and _asks_for_super_of_self(code):
                return f"{base.__name__}.{name}"
    return None


def _asks_for_super_of_self(code: CodeType) -> bool:
    if "super" not in code.co_names or not {"__class__", "type"}.intersection(code.co_names):
        return False
    names = [
        one.argval
        for one in dis.get_instructions(code)
        if one.opname.startswith(("LOAD_GLOBAL", "LOAD_FAST", "LOAD_ATTR", "LOAD_SUPER"))
    ]
    self = code.co_varnames[0] if code.co_argcount else "self"
    starts = [place for place, name in enumerate(names) if name == "super"]
    return any(names[at + 1 : at + 3] in ([self, "__class__"], ["type", self]) for at in starts)
