"""Rounding put back into a model that its own class loaded, as its config states it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from tersely.arithmetic.qparams import QParams
from tersely.contracts.settings import DEFAULT_GRANULARITY
from tersely.errors import PlanError, SessionFileError
from tersely.instrument.names import state_buffer
from tersely.instrument.scales.input_scales import ScaleChannels
from tersely.instrument.transforms import put
from tersely.json_value import Json
from tersely.planning.plan import Plan
from tersely.quantization.targets import grid_of
from tersely.registry.registry import registry
from tersely.session.attaching import attach
from tersely.session.finalizing.baking import FinalizeWarning
from tersely.session.finalizing.stated_rounding import FORMAT, KEY

_STATIC, _DYNAMIC = "ptq", "rtn"
_SETTING = ("quant_dtype", "quant_scheme", "granularity")


def restore_rounding(model: nn.Module) -> nn.Module:
    """Round the inputs and outputs of a model that ``from_pretrained`` loaded as they were rounded.

    A finished model whose inputs or outputs stay quantized records that in its config, which
    ``save_pretrained`` of Transformers writes. Its own class loads the weights and computes with
    inputs that are not rounded; this puts the rounding back.

    Args:
        model: the loaded model; changed in place. One whose config says nothing stays as it is.

    Returns:
        The model.

    Raises:
        SessionFileError: what the config says is damaged, or of another version of tersely.
        PlanError: it does not fit the model, or the model is not a module.
    """
    if not isinstance(model, nn.Module):
        raise PlanError(f"the model must be a torch.nn.Module, found {type(model).__name__}")
    stated: object = getattr(getattr(model, "config", None), KEY, None)
    if stated is None:
        return model
    if not isinstance(stated, Mapping) or stated.get("format") != FORMAT:
        found = stated.get("format") if isinstance(stated, Mapping) else stated
        raise SessionFileError(
            f"the model's config has {KEY!r} of format {found!r}, expected {FORMAT}; it was "
            "written by another version of tersely, or changed by hand"
        )
    try:
        rows = [_Rounded.of(row) for row in stated["rounded"]]
        buffers = {name: _type_of(text) for name, text in stated.get("buffers", {}).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SessionFileError(
            f"the model's config has {KEY!r} that is damaged: {error!r}; save the finished model "
            "again"
        ) from error
    was_training = model.training
    session = attach(model, {"quantization": list(_stages(rows)), "strict": True})
    session.set_qparams(_given(rows, session.plan, model))
    session.compress()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FinalizeWarning)  # it is what was asked for
        session.finalize()
    for row in rows:
        if row.factors is not None:
            _put_factors(model.get_submodule(row.module), row, row.factors)
    _convert(model, buffers)
    return model.train(was_training)


def _type_of(text: str) -> torch.dtype:
    found: object = getattr(torch, text, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"there is no type {text!r}")
    return found


def _convert(model: nn.Module, buffers: Mapping[str, torch.dtype]) -> None:
    """Give buffers that no file holds the type that they had, which rounds them as it did."""
    for full_name, dtype in buffers.items():
        path, _, name = full_name.rpartition(".")
        module = model.get_submodule(path)
        buffer = module._buffers.get(name)
        if buffer is not None and name in module._non_persistent_buffers_set:
            module._buffers[name] = buffer.to(dtype)


def _put_factors(module: nn.Module, row: _Rounded, factors: Tensor) -> None:
    """Round an input as it was rounded: divided by its factors, and multiplied afterwards."""
    buffer = state_buffer(row.target, "input_scale")
    device = next((one.device for one in module.parameters()), None)
    module.register_buffer(buffer, factors.to(device), persistent=False)
    divided = ScaleChannels(buffer, row.channel_dim, divides=True)
    for step in (divided, divided.undone()):
        put(module, row.target, (step,), place=step.place)


@attrs.frozen
class _Rounded:
    module: str
    target: str
    setting: Mapping[str, Json]
    qparams: tuple[Tensor, Tensor] | None
    factors: Tensor | None
    channel_dim: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> _Rounded:
        setting = {key: row[key] for key in _SETTING if row[key] != DEFAULT_GRANULARITY}
        numbers = {
            name: torch.tensor(row[name])
            for name in ("scale", "zero_point", "factors")
            if name in row
        }
        return cls(
            module=row["module"],
            target=row["target"],
            setting=setting,
            qparams=(numbers["scale"], numbers["zero_point"]) if "scale" in numbers else None,
            factors=numbers.get("factors"),
            channel_dim=row.get("channel_dim", -1),
        )


def _stages(rows: Sequence[_Rounded]) -> Iterator[dict[str, Json]]:
    for algorithm, is_static in ((_STATIC, True), (_DYNAMIC, False)):
        own = [row for row in rows if (row.qparams is not None) is is_static]
        entries: list[dict[str, Json]] = []
        for row in own:
            entry = {"target_names": [row.target], "target_settings": {row.target: row.setting}}
            alike = [one for one in entries if {**one, **entry} == one]
            if not alike:
                alike = [{**entry, "op_names": []}]
                entries += alike
            alike[0]["op_names"].append(row.module)
        if entries:
            name = registry().quantizers.official(algorithm)
            yield {"algorithm": name, "config_list": entries}


def _given(
    rows: Sequence[_Rounded], plan: Plan, model: nn.Module
) -> dict[str, dict[str, QParams | None]]:
    device = next((one.device for one in model.parameters()), torch.device("cpu"))
    planned = {(one.module, one.target): one for one in plan}
    found: dict[str, dict[str, QParams | None]] = {}
    for row in rows:
        if row.qparams is None:
            continue
        grid = grid_of(planned[row.module, row.target])
        scale, zero_point = row.qparams
        found.setdefault(row.module, {})[row.target] = QParams(
            scale=scale.to(device),
            zero_point=zero_point.to(device),
            quant_min=grid.quant_min,
            quant_max=grid.quant_max,
            dtype=grid.dtype,
            scheme=grid.scheme,  # type: ignore[arg-type]  # one of the two
        )
    return found
