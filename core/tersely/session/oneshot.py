"""One call for the common cases: prune, quantize, distil."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from torch import nn

from tersely.engine.observation.batches import Forward
from tersely.engine.observation.padding import PaddingMask
from tersely.errors import AttachError
from tersely.json_value import Json
from tersely.planning.targets.losses import needs_teacher
from tersely.registry.registry import registry
from tersely.session.attaching import attach
from tersely.session.session import Session

DEFAULT_PRUNER = "l1_norm"
DEFAULT_QUANTIZER = "ptq"


def prune(
    model: nn.Module,
    config_list: Sequence[Mapping[str, Json]],
    *,
    algorithm: str | None = None,
    options: Mapping[str, Json] | None = None,
    data: Iterable[Any] | None = None,
    forward: Forward | None = None,
    mask: PaddingMask | None = None,
    example_inputs: Any = None,
) -> Session:
    """Prune a model at once and return the session whose masks are in force.

    Args:
        model: the model, instrumented in place.
        config_list: which targets, and how sparse.
        algorithm: the pruner's name; by default that of ``l1_norm``.
        options: the pruner's options.
        data: batches for algorithms and targets that need calibration.
        forward: called as forward(model, batch); see `Session.calibrate`.
        mask: which positions of a batch are data; see `Session.calibrate`.
        example_inputs: what to run the model with where a ``budget`` counts parameters or
            operations; see `attach`.

    Raises:
        ConfigError: the config list, algorithm or options are wrong.
        PlanError: the config list does not fit the model.
        SessionError: calibration is needed and no data was given; the model is untouched.
    """
    algorithm = algorithm or registry().pruners.official(DEFAULT_PRUNER)
    stage = _stage(config_list, algorithm, options)
    return _run(model, "pruning", stage, data, forward, mask, example_inputs=example_inputs)


def quantize(  # noqa: PLR0913  # what a stage says and what calibration takes
    model: nn.Module,
    config_list: Sequence[Mapping[str, Json]] = (),
    *,
    preset: str | None = None,
    runtime: str | None = None,
    reduce_range: bool = False,
    algorithm: str | None = None,
    options: Mapping[str, Json] | None = None,
    fuse_names: Sequence[Sequence[str]] | Literal["auto", "none"] | None = None,
    data: Iterable[Any] | None = None,
    forward: Forward | None = None,
    mask: PaddingMask | None = None,
    example_inputs: Any = None,
) -> Session:
    """Quantize a model at once and return the session whose scales are in force.

    Args:
        model: the model, instrumented in place.
        config_list: which targets, and to which dtype; with a preset, entries that override it.
        preset: the name of a preset, see `tersely.preset`.
        runtime: the runtime that the preset is made for.
        reduce_range: whether the preset's weights have 7 bits, for processors without VNNI.
        algorithm: the quantizer's name; by default the preset's, else that of ``ptq``.
        options: the quantizer's options.
        fuse_names: groups of module names, each folded into its first module; ``auto``, which is
            what a preset does by default; or ``none``.
        data: batches for calibration.
        forward: called as forward(model, batch); see `Session.calibrate`.
        mask: which positions of a batch are data; see `Session.calibrate`.
        example_inputs: what to run the model with to find what can be folded; by default the
            first batch, if ``forward`` is not given. See `attach`.

    Raises:
        ConfigError: the config list, algorithm or options are wrong.
        PlanError: the config list does not fit the model.
        SessionError: calibration is needed and no data was given; the model is untouched.
    """
    if algorithm is None and preset is None:
        algorithm = registry().quantizers.official(DEFAULT_QUANTIZER)
    stage = _stage(config_list, algorithm, options)
    if preset is not None:
        stage |= {"preset": preset, "for": runtime}
    elif runtime is not None:
        stage["for"] = runtime  # raises an error if there is no preset
    if reduce_range:
        stage["reduce_range"] = True  # without a preset likewise
    if fuse_names is not None:
        stage["fuse_names"] = fuse_names
    if example_inputs is None and forward is None and data is not None:
        if isinstance(data, Sequence):
            example_inputs = data[0] if data else None
        elif fuse_names == "auto" or (preset is not None and fuse_names is None):
            batches = iter(data)  # calibration reads them once
            example_inputs = next(batches, None)
            data = itertools.chain(() if example_inputs is None else (example_inputs,), batches)
    return _run(model, "quantization", stage, data, forward, mask, example_inputs=example_inputs)


def distill(
    model: nn.Module,
    config_list: Sequence[Mapping[str, Json]],
    *,
    teacher: nn.Module | None = None,
) -> Session:
    """Attach distillation to a model and return the session to train with.

    Args:
        model: the student, instrumented in place.
        config_list: which targets, and which modules of the teacher they are linked to.
        teacher: the teacher; None where every loss is one of the student alone.

    Raises:
        ConfigError: the config list is wrong.
        PlanError: the config list does not fit the model or the teacher.
        AttachError: the teacher shares modules with the model, or a loss compares with a teacher
            and there is none; the model is as it was.
    """
    session = attach(
        model, {"distillation": {"config_list": _entries(config_list) or []}}, teacher=teacher
    )
    learning = next((one for one in session.plan if needs_teacher(one)), None)
    if teacher is None and learning is not None:
        session.detach()
        raise AttachError(
            f"{learning.name} learns by {learning.algorithm}, which compares it with a teacher, "
            "and there is none; give tersely.distill(..., teacher=...), or attach the recipe "
            "without one and call session.use_teacher_cache(...)",
            **learning.place,
        )
    return session


def _stage(
    config_list: Sequence[Mapping[str, Json]],
    algorithm: str | None,
    options: Mapping[str, Json] | None,
) -> dict[str, Json]:
    stage: dict[str, Json] = {"algorithm": algorithm, "config_list": _entries(config_list)}
    if options is not None:
        stage["options"] = dict(options)
    return stage


def _entries(config_list: Sequence[Mapping[str, Json]]) -> Json:
    """Return a config list as data, or what is there instead of one, for the check to refuse."""
    if isinstance(config_list, (str, bytes, Mapping)):
        return config_list
    return list(config_list) or None


def _run(
    model: nn.Module,
    method: str,
    stage: Mapping[str, Json],
    data: Iterable[Any] | None,
    forward: Forward | None,
    mask: PaddingMask | None,
    *,
    example_inputs: Any = None,
) -> Session:
    session = attach(model, {method: stage}, example_inputs=example_inputs)
    try:
        if data is not None:
            session.calibrate(data, forward=forward, mask=mask)
        session.compress()
    except BaseException:
        session.detach()
        raise
    return session
