"""What each module of a session becomes while its weights are integers.

What its tensors become:

    quantized parameter    a buffer of its name with the integers, read by `ReadIntegers`;
                           ``<name>_scale`` and ``<name>_zero_point`` where there are several
    masked or folded one   a parameter of its name with the values that forward computes with
    batch norm, folded     nothing: its layer includes it
    input or output        its mask and factors stay, its rounding is `RoundFixed` or `RoundCall`
    anything else          unchanged
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import attrs
from torch import Tensor, nn

from tersely.exporting.floats import raw_tensor, value_in_force
from tersely.exporting.steps import ReadIntegers, RoundCall, RoundFixed, block_size_of
from tersely.instrument.folding import NORMS, Fold, Settled
from tersely.instrument.instruments import Instruments, Transform
from tersely.instrument.masks.mask_transforms import ActivationMask
from tersely.instrument.modules.attaching import replace_class
from tersely.instrument.modules.classes import instrumented_class, instruments_of
from tersely.instrument.names import INSTRUMENTS, PREFIX, TAP, UNSCALE, full_name
from tersely.instrument.scales.by_algorithm import Dynamic, Learned
from tersely.instrument.scales.in_force import qparams_of
from tersely.instrument.scales.input_scales import ScaleChannels
from tersely.instrument.scales.moving_range import Follow
from tersely.instrument.scales.quantizing import Quantize
from tersely.planning.selecting.classes import ORIGINAL
from tersely.quantization.folds import carried_bias
from tersely.quantization.integers import IntegerTensor


@attrs.frozen(eq=False)
class Change:
    """The tensors and instruments that a module gets.

    Attributes:
        module: the module.
        parameters: its parameters.
        buffers: its buffers.
        instruments: its instruments.
        stored: the names of buffers with integers, scales and zero points.
    """

    module: nn.Module
    parameters: Mapping[str, Tensor | None]
    buffers: Mapping[str, Tensor | None]
    instruments: Instruments
    stored: Collection[str] = ()

    def put(self) -> None:
        """Apply the change."""
        module, current = self.module, type(self.module)
        original = getattr(current, ORIGINAL, current)
        made = instrumented_class(
            original, frozenset(self.instruments.parameters), self.instruments.has_sites
        )
        is_ours = INSTRUMENTS in module.__dict__
        object.__setattr__(module, "__class__", replace_class(current, made) if is_ours else made)
        module.__dict__[INSTRUMENTS] = self.instruments
        module._parameters.clear()
        module._parameters.update(self.parameters)  # type: ignore[arg-type]  # parameters all
        module._buffers.clear()
        module._buffers.update(self.buffers)


def changed(
    module: nn.Module,
    stored: Mapping[str, IntegerTensor],
    made: dict[tuple[int, str], Tensor],
    *,
    norm: nn.Module | None,
    is_taken_up: bool,
) -> Change:
    """Return the change of a module.

    Args:
        module: a module of the session's model.
        stored: its quantized parameters.
        made: the new tensors so far, by the identity of the old ones; a tied tensor stays one.
        norm: the batch norm that the module, a layer of a finished model, has taken up, or None.
        is_taken_up: whether the module is such a batch norm.
    """
    instruments = instruments_of(module) if INSTRUMENTS in module.__dict__ else Instruments()
    if is_taken_up:
        return Change(module, {}, {}, attrs.evolve(instruments, parameters={}, is_folded=True))
    if instruments.is_folded and isinstance(module, NORMS):
        return Change(module, {}, {}, attrs.evolve(instruments, parameters={}))
    parameters: dict[str, Tensor | None] = dict(module._parameters)
    buffers = {name: one for name, one in module._buffers.items() if not name.startswith(PREFIX)}
    plain = set(buffers)
    steps: dict[str, tuple[Transform, ...]] = {}
    for name in dict.fromkeys((*instruments.parameters, *stored)):
        if name in stored:
            parameters.pop(name, None)
            steps[name] = (_put_integers(stored[name], name, parameters, buffers, made),)
        else:
            _put_values(module, name, parameters, buffers, made)
            steps[name] = ()
    if norm is not None and parameters.get("bias") is None:
        bias = carried_bias(norm)
        parameters["bias"] = nn.Parameter(bias, requires_grad=False)
    own = (set(buffers) - plain) | (set(stored) & plain)
    fold = instruments.fold
    # A finished module multiplies its input back, because its weight has the size of its class.
    is_divided = any(
        one.input_scale is not None and not one.divides_weight for one in stored.values()
    )
    inputs = {
        site: _site_steps(module, site.target, chain, is_divided=is_divided)
        for site, chain in instruments.inputs.items()
    }
    outputs = {
        site: _site_steps(module, site.target, chain, is_divided=False)
        for site, chain in instruments.outputs.items()
    }
    for chain in (*inputs.values(), *outputs.values()):
        for step in chain:
            if isinstance(step, (ActivationMask, ScaleChannels)):
                buffer = module._buffers.get(step.buffer)
                if buffer is not None:
                    buffers[step.buffer] = buffer
    changed = attrs.evolve(
        instruments,
        parameters=steps,
        inputs={site: chain for site, chain in inputs.items() if chain},
        outputs={site: chain for site, chain in outputs.items() if chain},
        fold=Fold(None, fold.activation) if isinstance(fold, (Fold, Settled)) else fold,
    )
    return Change(module, parameters, buffers, changed, own)


def _put_integers(
    tensor: IntegerTensor,
    name: str,
    parameters: Mapping[str, Tensor | None],
    buffers: dict[str, Tensor | None],
    made: dict[tuple[int, str], Tensor],
) -> ReadIntegers:
    def put(part: str, value: Tensor) -> str:
        free = f"{name}{part}"
        while free in parameters or free in buffers:
            free += "_"
        buffers[free] = made.setdefault((id(tensor), part), value.detach().clone())
        return free

    qparams = tensor.qparams
    buffers[name] = made.setdefault((id(tensor), ""), tensor.values)
    scale: str | float
    zero_point: str | float
    whole = _whole(qparams.zero_point)
    is_one = qparams.scale.numel() == 1
    if is_one and not whole.is_floating_point():
        size = (-1,) * tensor.values.ndim
        scale, zero_point = float(qparams.scale), int(whole)
    else:  # the operators that take numbers take only integer zero points
        size = (-1,) * tensor.values.ndim if is_one else block_size_of(qparams, tensor.values.shape)
        scale = put("_scale", qparams.scale.reshape(-1))
        zero_point = put("_zero_point", whole.reshape(-1))
    factors = None
    if tensor.input_scale is not None and tensor.divides_weight:
        factors = put("_input_scale", tensor.input_scale)
    return ReadIntegers(
        scale=scale,
        zero_point=zero_point,
        size=size,
        limits=(qparams.quant_min, qparams.quant_max),
        out=tensor.dtype,
        factors=factors,
        input_dim=tensor.input_dim,
    )


def _whole(zero_point: Tensor) -> Tensor:
    # Some algorithms choose zero points between integers, which are kept.
    is_whole = not zero_point.is_floating_point() or bool((zero_point == zero_point.round()).all())
    return zero_point.long() if is_whole else zero_point


def _put_values(
    module: nn.Module,
    name: str,
    parameters: dict[str, Tensor | None],
    buffers: dict[str, Tensor | None],
    made: dict[tuple[int, str], Tensor],
) -> None:
    raw = raw_tensor(module, name)
    value = value_in_force(module, name)
    if value is None or value is raw:
        return
    if name in buffers:
        buffers[name] = made.setdefault((id(raw), ""), value.detach())
        return
    key = (id(module), name) if raw is None else (id(raw), "")
    parameters[name] = made.setdefault(key, nn.Parameter(value.detach(), requires_grad=False))


def _site_steps(
    module: nn.Module, target: str, chain: Sequence[Transform], *, is_divided: bool
) -> tuple[Transform, ...]:
    found: list[Transform] = []
    name = full_name(module, target)
    for step in chain:
        if step.place == TAP:
            continue
        if isinstance(step, ScaleChannels) and step.place == UNSCALE and is_divided:
            continue
        if isinstance(step, Dynamic):
            found.append(RoundCall(step, name))
        elif isinstance(step, (Quantize, Follow, Learned)):
            inner = step if isinstance(step, Quantize) else step.inner
            qparams = qparams_of(module, target)
            if qparams is not None:
                found.append(RoundFixed(inner, name, qparams))
        else:
            found.append(step)
    return tuple(found)
