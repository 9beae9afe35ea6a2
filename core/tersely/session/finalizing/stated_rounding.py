"""How the inputs and outputs of a finished model are rounded, stated in its config."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import nn

from tersely.arithmetic.qparams import QParams
from tersely.engine.targets.binding import BoundTarget
from tersely.instrument.names import PREFIX, SCALE
from tersely.instrument.scales.input_scales import ScaleChannels
from tersely.instrument.transforms import chain_of
from tersely.json_value import Json

KEY = "tersely"
"""The name under which a config has it."""

FORMAT = 1


def state_rounding(
    model: nn.Module,
    staying: Iterable[BoundTarget],
    qparams: Sequence[tuple[BoundTarget, QParams]],
) -> None:
    """Write into a model's config how its inputs and outputs are rounded, if it has a config.

    A config is what ``save_pretrained`` of Transformers writes with the weights: it can be turned
    into JSON data and takes further attributes.

    Args:
        model: the finished model.
        staying: the inputs and outputs that stay quantized.
        qparams: the scales and zero points in force, by target.
    """
    config = getattr(model, "config", None)
    if not hasattr(config, "to_dict") or not hasattr(model, "save_pretrained"):
        return
    chosen = dict(qparams)
    rows = [row for one in staying if (row := _row(one, chosen.get(one))) is not None]
    if rows:
        stated: dict[str, Json] = {"format": FORMAT, "rounded": rows}
        buffers = dict(_converted_buffers(model))
        setattr(config, KEY, {**stated, "buffers": buffers} if buffers else stated)
    elif hasattr(config, KEY):
        delattr(config, KEY)


def _converted_buffers(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield buffers that no file holds and that ``model.half()`` has converted, with their type.

    The frequencies of rotary embeddings are: the class makes them in float32 when it is loaded.
    """
    for path, module in model.named_modules():
        for name in sorted(module._non_persistent_buffers_set):
            buffer = module._buffers.get(name)
            if buffer is None or name.startswith(PREFIX) or not buffer.is_floating_point():
                continue
            if buffer.dtype != torch.float32:
                yield (f"{path}.{name}" if path else name), str(buffer.dtype).removeprefix("torch.")


def _row(bound: BoundTarget, qparams: QParams | None) -> dict[str, Json] | None:
    plan = bound.plan
    if plan.method != "quantization" or not plan.quantization.is_simulated:
        return None
    setting = plan.quantization
    row: dict[str, Json] = {
        "module": plan.module,
        "target": plan.target,
        "quant_dtype": setting.quant_dtype,
        "quant_scheme": setting.quant_scheme,
        "granularity": setting.granularity,
    }
    if qparams is not None:
        row |= {"scale": qparams.scale.tolist(), "zero_point": qparams.zero_point.tolist()}
    for step in chain_of(bound.module, plan.target):
        if isinstance(step, ScaleChannels) and step.place == SCALE:
            factors = bound.module._buffers.get(step.buffer)
            if factors is not None:
                row |= {"factors": factors.tolist(), "channel_dim": step.dim}
    return row
