"""What a plugin says about itself, without importing torch: one frozen descriptor each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

import attrs

from tersely.contracts.ability_names import PRUNER_ABILITIES, QUANTIZER_ABILITIES, needs_of
from tersely.contracts.kinds import NEEDS, Method, Needs, TargetKind
from tersely.json_value import Json
from tersely.text import nearest

METHODS: tuple[Method, ...] = ("pruning", "quantization", "distillation")
TARGET_KINDS: tuple[TargetKind, ...] = ("parameter", "buffer", "input", "output")
_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_IMPLEMENTATION = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*\Z")
_NO_OPTIONS: Mapping[str, Json] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}


def _is_name(instance: object, attribute: attrs.Attribute[str], value: object) -> None:
    if not isinstance(value, str) or not _NAME.match(value):
        raise ValueError(f"{type(instance).__name__}: name {value!r} must match ^[a-z][a-z0-9_]*$")


def _is_reference(instance: object, attribute: attrs.Attribute[str], value: object) -> None:
    if not isinstance(value, str) or not _IMPLEMENTATION.match(value):
        raise ValueError(
            f"{type(instance).__name__}: implementation {value!r} must be "
            f"'package.module:Object'{_identifiers(value)}"
        )


def _identifiers(reference: object) -> str:
    """Return how ``my-pruner:Object`` is written, with which a plugin of one file may begin."""
    module, colon, path = str(reference).partition(":")
    name = re.sub(r"[^\w.]", "_", module)
    near = f"{'_' if name[:1].isdigit() else ''}{name}{colon}{path}"
    return f", as in {near!r}" if _IMPLEMENTATION.match(near) else ""


def _is_text(instance: object, attribute: attrs.Attribute[str], value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(
            f"{type(instance).__name__}: {attribute.name} is of type {type(value).__name__}, "
            "expected text"
        )


def _are_kinds(
    instance: object, attribute: attrs.Attribute[tuple[str, ...]], value: tuple[str, ...]
) -> None:
    unknown = [kind for kind in value if kind not in TARGET_KINDS]
    if unknown:
        raise ValueError(f"target_kinds: {unknown} is not among {list(TARGET_KINDS)}")


def _as_kinds(value: Iterable[TargetKind]) -> tuple[TargetKind, ...]:
    return tuple(value)


def _all_kinds() -> tuple[TargetKind, ...]:
    return TARGET_KINDS


def _as_names(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


def _are_abilities(
    instance: object, attribute: attrs.Attribute[tuple[str, ...]], value: tuple[str, ...]
) -> None:
    table = PRUNER_ABILITIES if isinstance(instance, PrunerInfo) else QUANTIZER_ABILITIES
    for name in value:
        if name not in table:
            near = nearest(str(name), table, count=1)
            hint = f", did you mean {near[0]!r}?" if near else f"; there are {', '.join(table)}"
            raise ValueError(
                f"{type(instance).__name__}: abilities: {name!r} is not one of its abilities{hint}"
            )


def _is_count(instance: object, attribute: attrs.Attribute[int], value: int | None) -> None:
    if value is not None and value < 1:
        raise ValueError(
            f"targets: {value} is not a number of targets; expected 1 or more, or None"
        )


@attrs.frozen(kw_only=True)
class Descriptor:
    """What every plugin object states.

    Attributes:
        name: the short name users write, ``^[a-z][a-z0-9_]*$``, unique per kind.
        implementation: ``package.module:Object``, imported when a plan first uses it.
        summary: one line for listings.
        options: JSON Schema (2020-12) of the keyword arguments ``Object`` takes.
        paper: authors, venue and year, or None.
    """

    name: str = attrs.field(validator=_is_name)
    implementation: str = attrs.field(validator=_is_reference)
    summary: str = attrs.field(default="", validator=_is_text)
    options: Mapping[str, Json] = attrs.field(factory=lambda: dict(_NO_OPTIONS))
    paper: str | None = attrs.field(default=None, validator=attrs.validators.optional(_is_text))


@attrs.frozen(kw_only=True)
class PrunerInfo(Descriptor):
    """A pruning algorithm; ``Object(**options).importance(target)`` returns scores.

    Attributes:
        abilities: names of abilities in `tersely.contracts`, for a class that does not inherit
            from them.
        needs: what must have happened before scores exist; where it is not stated the abilities
            listed here tell it, or, None, those that the implementation inherits from.
        target_kinds: the kinds of target it can rank.
        granularities: the granularities it supports, short or qualified, or None for any.
        default_granularity: what ``granularity: default`` means for it, a granularity value or
            one of ``element``, ``row`` (elements, the ratio met in each output channel),
            ``output_channel`` and ``tensor``.
        default_scope: ``target`` where a ratio is met in each target unless a config groups them;
            ``global`` where all targets of one ratio share one budget unless it does.
    """

    abilities: tuple[str, ...] = attrs.field(
        default=(), converter=_as_names, validator=_are_abilities
    )
    needs: Needs | None = attrs.field(validator=attrs.validators.in_((None, *NEEDS)))
    target_kinds: tuple[TargetKind, ...] = attrs.field(
        factory=_all_kinds, converter=_as_kinds, validator=_are_kinds
    )
    granularities: tuple[str, ...] | None = None
    default_granularity: Json = "element"
    default_scope: Literal["target", "global"] = attrs.field(
        default="target", validator=attrs.validators.in_(("target", "global"))
    )

    @needs.default
    def _derive(self) -> Needs | None:
        return needs_of(self.abilities, PRUNER_ABILITIES) if self.abilities else None


@attrs.frozen(kw_only=True)
class QuantizerInfo(Descriptor):
    """A quantization algorithm; ``Object(**options).choose(low, high, target)`` returns QParams.

    Attributes:
        abilities: names of abilities in `tersely.contracts`, for a class that does not inherit
            from them.
        needs: what must have happened before scales exist; where it is not stated the abilities
            listed here tell it, or, None, those that the implementation inherits from.
        target_kinds: the kinds of target it can quantize.
        granularities: the granularities it supports, short or qualified, or None for any.
        default_granularity: what ``granularity: default`` means for it.
        default_scheme: the scheme used where a config gives none.
    """

    abilities: tuple[str, ...] = attrs.field(
        default=(), converter=_as_names, validator=_are_abilities
    )
    needs: Needs | None = attrs.field(validator=attrs.validators.in_((None, *NEEDS)))
    target_kinds: tuple[TargetKind, ...] = attrs.field(
        factory=_all_kinds, converter=_as_kinds, validator=_are_kinds
    )
    granularities: tuple[str, ...] | None = None
    default_granularity: Json = "tensor"
    default_scheme: Literal["symmetric", "affine"] = "symmetric"

    @needs.default
    def _derive(self) -> Needs | None:
        return needs_of(self.abilities, QUANTIZER_ABILITIES) if self.abilities else None


@attrs.frozen(kw_only=True)
class GranularityInfo(Descriptor):
    """A granularity; ``Object().blocks(shape, target)`` returns Blocks.

    A config selects it by its name, by ``{name: options}``, or, when ``values`` is given, by any
    value that this JSON Schema accepts; such a value is passed as ``Object(value=...)``.

    Attributes:
        target_kinds: the kinds of target it can divide.
        values: JSON Schema of further spellings (a list, ``"2:4"``, ``{"group": 128}``), or None.
        is_dynamic: whether it keeps samples apart, so that what it decides holds for one call of
            the module only; quantization then computes scales at every call.
        is_by_channel: whether an input or output is cut into its channels, whatever its other
            lengths are, so that calibration and forward may see inputs of different sizes.
    """

    target_kinds: tuple[TargetKind, ...] = attrs.field(
        factory=_all_kinds, converter=_as_kinds, validator=_are_kinds
    )
    values: Mapping[str, Json] | None = None
    is_dynamic: bool = False
    is_by_channel: bool = False


@attrs.frozen(kw_only=True)
class LossInfo(Descriptor):
    """A distillation loss; ``Object(student, teacher, **options)`` returns a 0-dim tensor.

    Attributes:
        needs: ``teacher``, or ``nothing`` for a loss of the student alone; its ``teacher`` is None.
        input_options: options that name an argument of the model's forward; the loss is given what
            the model was called with, a tensor.
        batch_options: options that name a part of the batch, such as its labels or the indices of
            its samples: a key of a mapping, or the place in a list or tuple. The loss is given that
            part of what ``session.total_loss(task_loss, batch=...)`` was given. The default in the
            options' schema is the part's name unless a config says otherwise; where that is null
            the loss is given None.
        targets: how many targets of an entry one call takes, as tuples in the order written: 1 for
            a tensor each, a number, or None for all that the entry has.
    """

    needs: Literal["nothing", "teacher"] = attrs.field(
        default="teacher", validator=attrs.validators.in_(("nothing", "teacher"))
    )
    input_options: tuple[str, ...] = attrs.field(default=(), converter=_as_names)
    batch_options: tuple[str, ...] = attrs.field(default=(), converter=_as_names)
    targets: int | None = attrs.field(default=1, validator=_is_count)


@attrs.frozen(kw_only=True)
class ScheduleInfo(Descriptor):
    """A sparsity schedule; ``Object(progress, **options)`` maps progress in [0, 1] to a factor."""


HOLDABLE = ("float_zero_points", "levels", "numbered_blocks")
"""What an export format may hold or not, see `ExporterInfo`."""


@attrs.frozen(kw_only=True)
class ExporterInfo(Descriptor):
    """An export format; ``Object(**options)`` refuses, writes and checks, see `tersely.Exporter`.

    Attributes:
        suffix: the ending of the main file it writes, as in ``.onnx``.
        holds: what the format holds of quantized weights besides integer zero points in blocks:
            ``float_zero_points``, ``levels``, ``numbered_blocks``. The core refuses the others by
            name, so that a format that does not know of them writes nothing wrong.
        is_reproducible: whether one session always gives the same bytes; False where the format's
            own library writes dates or random numbers into its files.
    """

    suffix: str = ""
    is_reproducible: bool = True
    holds: tuple[str, ...] = attrs.field(
        default=(),
        converter=_as_names,
        validator=attrs.validators.deep_iterable(attrs.validators.in_(HOLDABLE)),
    )


@attrs.frozen(kw_only=True)
class DependencyTracerInfo(Descriptor):
    """A tracer; ``Object(**options).trace(...)`` finds parameters that share output channels."""


@attrs.frozen(kw_only=True)
class ModuleSetting:
    """The default targets of one module type, and where its channels are.

    A target name may end in ``*``, which stands for every parameter that starts like it; in the
    ``target_name`` of its ``align`` the star stands for the same ending.

    Attributes:
        module_type: the class name (``Linear``) or dotted path (``torch.nn.Linear``).
        pruning: target name -> setting, for pruning stages; empty when there is no default.
        quantization: target name -> setting, for quantization stages.
        distillation: target name -> setting, for distillation stages.
        output_dim: the dimension of ``weight`` that counts output channels.
        input_dim: the dimension of ``weight`` that counts input channels.
        channels_first: whether activations have their channels in dimension 1, not the last.
        experts: the parameters that stack one matrix (or bias) for each expert along dimension 0,
            as `tersely.experts_setting` lists them; each expert's is divided, ranked and solved
            like the weight of a linear layer of its own.
    """

    module_type: str
    pruning: Mapping[str, Mapping[str, Json]] = attrs.field(factory=dict)
    quantization: Mapping[str, Mapping[str, Json]] = attrs.field(factory=dict)
    distillation: Mapping[str, Mapping[str, Json]] = attrs.field(factory=dict)
    output_dim: int = 0
    input_dim: int = 1
    channels_first: bool = False
    experts: tuple[str, ...] = attrs.field(default=(), converter=_as_names)
