"""The class made on the fly: the user's class with processed parameters, inputs and outputs.

A targeted parameter becomes a property of the class. It reads the untouched Parameter from
``_parameters`` and returns it processed, so ``named_parameters``, optimizers and checkpoints see
what they always saw, and code that reads ``module.weight`` without calling the module sees what
will be deployed.
"""

from __future__ import annotations

import copyreg
import functools
from collections.abc import Callable
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary, WeakValueDictionary

from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

from tersely.errors import AttachError
from tersely.instrument.instruments import Instruments
from tersely.instrument.masks.holding import hold_loaded, kept_by
from tersely.instrument.masks.masked_forward import WEIGHT, masked_forward
from tersely.instrument.modules.assigning import assign, delete, keep, register
from tersely.instrument.modules.checkpoints import make_room, settle_scales, without_empty
from tersely.instrument.modules.copying import WAYS, copied, make_of_class
from tersely.instrument.modules.eager import is_eager
from tersely.instrument.modules.layout import renew_layout
from tersely.instrument.modules.learned_buffers import apply_to_learned, keep_learning, learned_by
from tersely.instrument.modules.limiting import limited_forward
from tersely.instrument.modules.nesting import FLAG, is_nesting
from tersely.instrument.modules.reading import know, known_value, reading_once
from tersely.instrument.names import FOLD, INSTRUMENTS, LOST, NAME, PREFIX, READ, is_moved_flag
from tersely.instrument.shown.lost_writes import need_no_lost_write
from tersely.instrument.shown.showing import show
from tersely.instrument.sites.inputs import process_inputs
from tersely.instrument.sites.outputs import process_output
from tersely.planning.selecting.classes import ORIGINAL

_Twins: TypeAlias = "WeakValueDictionary[tuple[frozenset[str], bool], type[nn.Module]]"

# Weak on both sides: a class goes when its user lets it go, and a twin, which keeps its class
# alive, with the last module that is one.
_made: WeakKeyDictionary[type[nn.Module], _Twins] = WeakKeyDictionary()


def instruments_of(module: nn.Module) -> Instruments:
    """Return the instruments of an instrumented module."""
    found: Instruments = module.__dict__[INSTRUMENTS]
    return found


def replace_instruments(module: nn.Module, instruments: Instruments) -> None:
    """Give an instrumented module other instruments for the same parameters and sites.

    Args:
        module: an instrumented module.
        instruments: its new instruments.
    """
    module.__dict__[INSTRUMENTS] = instruments


def is_sharded(value: Tensor) -> bool:
    """Tell whether a parameter is a DTensor, which FSDP2 shows outside forward."""
    return type(value).__name__ == "DTensor"


def instrumented_class(
    cls: type[nn.Module], parameters: frozenset[str], has_sites: bool
) -> type[nn.Module]:
    """Return the instrumented twin of a class; one for all modules that need the same.

    Args:
        cls: the module's class as it is.
        parameters: the parameters and buffers that become properties.
        has_sites: whether forward's inputs or outputs are processed.
    """
    twins = _made.setdefault(cls, WeakValueDictionary())
    made = twins.get((parameters, has_sites))
    if made is None:
        made = twins[parameters, has_sites] = _make(cls, parameters, has_sites)
    return made


def _make(cls: type[nn.Module], parameters: frozenset[str], has_sites: bool) -> type[nn.Module]:
    body: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        ORIGINAL: cls,
    }
    for name in sorted(parameters):
        body[name] = _processed(name)
    if parameters and issubclass(cls, nn.RNNBase):
        body["_flat_weights"] = _flat_weights()
        body["_update_flat_weights"] = _keep_flat_weights
    if issubclass(cls, nn.TransformerEncoder):
        body[FLAG] = is_nesting()
    original: Callable[..., Any] = cls.forward
    if WEIGHT in parameters:
        original = limited_forward(cls, masked_forward(cls, _computed), _computed)
    if parameters and not cls.__module__.startswith("torch."):
        original = reading_once(original)
    if has_sites:
        body["forward"] = _forward(original)
    elif original is not cls.forward:
        body["forward"] = original
    body["__new__"] = make_of_class(cls)
    metaclass: Any = type(cls)
    made: Any = metaclass(cls.__name__, (cls,), body)
    made.__reduce_ex__ = _reduce(made, cls, parameters, has_sites)
    for way in WAYS:
        if hasattr(cls, way):
            setattr(made, way, copied(made, way))
    made._load_from_state_dict = _load(made)
    made._apply = apply_to_learned(made)
    if parameters:
        made.__setattr__ = assign(made)
        made.__delattr__ = delete(made)
        made.register_parameter = register(made)
    twin: type[nn.Module] = made
    return twin


def _processed(name: str) -> property:
    def read(module: nn.Module) -> Tensor | None:
        is_reading = not is_dynamo_compiling() and READ in module.__dict__
        known = known_value(module, name) if is_reading else None
        if known is not None:
            return known
        value = (_computed_once if is_reading else _computed)(module, name)
        # A compiled forward only reads; the check comes first in what torch.compile follows.
        if type(value) is Tensor and not is_dynamo_compiling():
            if LOST in module.__dict__:
                need_no_lost_write(module)
            if value is not module._buffers.get(name):
                show(module, name, value)
                keep(module, name)
        if is_reading and value is not None:
            know(module, name, value)
        return value

    return property(read)


def _computed(module: nn.Module, name: str) -> Tensor | None:
    """Return a target as forward computes with it."""
    value: Tensor | None = module._parameters.get(name)
    if value is None:
        value = module._buffers.get(name)
    transforms = module.__dict__[INSTRUMENTS].parameters[name]
    if value is None and transforms and transforms[0].place == FOLD:
        # A layer without bias has one while a batch norm is folded into it.
        value = transforms[0].of_nothing(module)
        transforms = transforms[1:]
    if value is None or is_sharded(value):
        return value
    for transform in transforms:
        value = transform(module, value)
    return value


def _computed_once(module: nn.Module, name: str) -> Tensor | None:
    """Return a target as forward computes with it, in memory of an earlier call if it is free."""
    reused = instruments_of(module).reused
    if reused is None or not is_eager():
        return _computed(module, name)
    with reused.offered():
        return _computed(module, name)


def _flat_weights() -> property:
    # Recurrent layers read a list of parameters that they keep in addition to _parameters.
    def read(module: nn.Module) -> list[Tensor | None]:
        names = module.__dict__["_flat_weights_names"]
        return [getattr(module, name, None) for name in names]

    def write(module: nn.Module, value: list[Tensor | None]) -> None:
        # Kept raw: processed tensors are not leaves, and a module that holds one cannot be copied.
        names = module.__dict__["_flat_weights_names"]
        module.__dict__["_flat_weights"] = [module._parameters.get(name) for name in names]

    return property(read, write)


def _keep_flat_weights(module: nn.Module) -> None:
    """Stand in for PyTorch's check for changed weights: the list above is always fresh."""


def _forward(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        instruments = self.__dict__.get(INSTRUMENTS)
        if instruments is None:
            return original(self, *args, **kwargs)  # someone kept it from before detach()
        if instruments.is_folded:
            return args[0] if args else next(iter(kwargs.values()))
        if instruments.padding is not None:
            instruments.padding.enter(args, kwargs)
            try:
                return compute(self, instruments, args, kwargs)
            finally:
                instruments.padding.leave()
        return compute(self, instruments, args, kwargs)

    def compute(self: nn.Module, instruments: Instruments, args: Any, kwargs: Any) -> Any:
        if instruments.inputs:
            args, kwargs = process_inputs(self, instruments.inputs, args, kwargs)
        if instruments.fold is None:
            output = original(self, *args, **kwargs)
        else:
            instruments.fold.before(self, args, kwargs)
            output = instruments.fold.after(original(self, *args, **kwargs))
        if instruments.outputs:
            output = process_output(self, instruments.outputs, output)
        return output

    return forward


def _reduce(
    made: Any, cls: type[nn.Module], parameters: frozenset[str], has_sites: bool
) -> Callable[..., Any]:
    def reduce(self: nn.Module, protocol: int) -> Any:
        # A class made on the fly cannot be found by name, so copies and pickles name the user's
        # class and how to make the twin again.
        reduced = super(made, self).__reduce_ex__(max(protocol, 2))
        if isinstance(reduced, str) or reduced[0] is not copyreg.__newobj__:  # type: ignore[attr-defined]  # exists
            raise AttachError(
                f"{cls.__name__} defines its own pickling, which tersely cannot extend; copy or "
                "save it after session.finalize() or session.detach()",
                target=self.__dict__.get(NAME),
            )
        arguments = (cls, tuple(sorted(parameters)), has_sites, *reduced[1][1:])
        return (rebuild, arguments, *reduced[2:])

    return reduce


def rebuild(
    cls: type[nn.Module], parameters: tuple[str, ...], has_sites: bool, *args: Any
) -> nn.Module:
    """Make an empty instrumented module; unpickling and copying fill in its state.

    Args:
        cls: the user's class.
        parameters: the parameters and buffers that are properties.
        has_sites: whether forward's inputs or outputs are processed.
        *args: what the user's class asks for in ``__new__``.
    """
    made: Any = instrumented_class(cls, frozenset(parameters), has_sites)
    module: nn.Module = cls.__new__(made, *args)
    return module


def _load(made: Any) -> Callable[..., None]:
    def load(
        self: nn.Module,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        kept = kept_by(self)
        error_msgs += make_room(self, state_dict, prefix)
        learned = learned_by(self)
        super(made, self)._load_from_state_dict(
            without_empty(self, state_dict, prefix),
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )
        keep_learning(self, learned)
        if kept:
            hold_loaded(self, kept)
        settle_scales(self, state_dict, prefix)
        renew_layout((self,))
        # Ranges that were loaded are those of a step's beginning.
        for name in [name for name in self.__dict__ if is_moved_flag(name)]:
            del self.__dict__[name]
        # A dense checkpoint has none of our keys, which is not an error.
        missing_keys[:] = [key for key in missing_keys if not key.startswith(prefix + PREFIX)]

    return load
