"""The state of quantization as named tensors for a saved session, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from tersely.engine.binding import Handle
from tersely.errors import SessionFileError
from tersely.instrument.names import STATE_PARTS
from tersely.json_value import Json
from tersely.quantization.engine import Quantization
from tersely.quantization.journal import restore_bias
from tersely.quantization.placing import learned_of, place_leaves, read_buffer, write_buffer
from tersely.quantization.ranges import Seen

PREFIX = "quantization."
BUFFER, LEARNED, MOVED, SEEN, OBSERVED = "buffer", "learned", "moved", "seen", "observed"
ORIGINAL, VALUE, OLD_BIAS, BIAS = "original", "value", "old_bias", "bias"
_KINDS = (BUFFER, LEARNED, MOVED, SEEN, OBSERVED, ORIGINAL, VALUE, OLD_BIAS, BIAS)


def quantization_state(quantization: Quantization) -> tuple[dict[str, Tensor], dict[str, Json]]:
    """Return everything that quantization needs to go on bit for bit.

    Args:
        quantization: the session's quantization.

    Returns:
        Tensors by ``quantization.kind:part:target``, and JSON data.
    """
    tensors: dict[str, Tensor] = {}
    for handle in quantization.handles:
        for part in STATE_PARTS:
            buffer = read_buffer(handle, part)
            if buffer is not None:
                tensors[_key(BUFFER, part, handle)] = buffer
        for part, leaf in learned_of(handle).items():
            tensors[_key(LEARNED, part, handle)] = leaf.detach()
    seen = {}
    for handle, one in quantization.seen.items():
        seen[handle.plan.name] = {
            "count": one.count,
            "shape": list(one.shape),
            "blocks": list(one.blocks),
        }
        for part, tensor in one.statistics.items():
            tensors[_key(SEEN, part, handle)] = tensor
    tensors.update(_gathered(quantization))
    tensors.update(_changed(quantization))
    data = {
        "is_compressed": quantization.is_compressed,
        "handed_over": quantization.is_handed_over,
        "kept_batches": quantization.has_kept_batches,
        "seen": seen,
    }
    return tensors, data


def _gathered(quantization: Quantization) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for run in quantization.runs:
        for handle, observed in run.observed.items():
            for part, tensor in observed.items():
                tensors[_key(OBSERVED, part, handle)] = tensor.clone()
        if run.optimizer is not None:
            for index, parts in run.optimizer.state_dict()["state"].items():
                for part, value in parts.items():
                    if value is not None:
                        name = f"{PREFIX}{MOVED}:{part}:{run.number}.{index}"
                        tensors[name] = torch.as_tensor(value)
    return tensors


def _changed(quantization: Quantization) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for handle, values in quantization.originals.items():
        tensors[_key(ORIGINAL, "", handle)] = values
        tensors[_key(VALUE, "", handle)] = handle.dense()
    for handle, values in quantization.biases.items():
        bias = handle.module._parameters["bias"]
        tensors[_key(OLD_BIAS, "", handle)] = values
        if bias is not None:
            tensors[_key(BIAS, "", handle)] = bias.detach()
    return tensors


def _key(kind: str, part: str, handle: Handle) -> str:
    return f"{PREFIX}{kind}:{part}:{handle.plan.name}"


Parts = dict[tuple[str, str], dict[str, Tensor]]


def understand(quantization: Quantization, tensors: Mapping[str, Tensor]) -> Parts:
    """Sort saved tensors by kind and target and check that the plan knows them.

    Args:
        quantization: the quantization of a freshly attached session of the same plan.
        tensors: what `quantization_state` returned.

    Returns:
        (kind, target or ``run.index``) -> part -> tensor.

    Raises:
        SessionFileError: a tensor belongs to another plan or model; nothing changed.
    """
    handles = {handle.plan.name: handle for handle in quantization.handles}
    found: Parts = {}
    for key, tensor in tensors.items():
        kind, part, name = key.removeprefix(PREFIX).split(":", 2)
        if kind not in _KINDS or (kind != MOVED and name not in handles):
            raise SessionFileError(f"the saved session has {key!r}, which its plan does not know")
        if kind in (ORIGINAL, VALUE) and tensor.shape != torch.Size(handles[name].plan.shape or ()):
            raise SessionFileError(
                f"the saved {kind} tensor of {name} has shape {list(tensor.shape)}, expected "
                f"{list(handles[name].plan.shape or ())}"
            )
        found.setdefault((kind, name), {})[part] = tensor
    return found


def restore_quantization(
    quantization: Quantization, parts: Parts, data: Mapping[str, Json], *, steps: int
) -> None:
    """Put a saved state in force.

    Args:
        quantization: the quantization of a freshly attached session of the same plan.
        parts: what `understand` returned.
        data: the JSON data of `quantization_state`.
        steps: optimizer steps so far.
    """
    quantization.move_to(steps)
    for handle in quantization.handles:
        name = handle.plan.name
        device = handle.raw.device if not handle.is_activation else _device(handle)
        buffers = parts.get((BUFFER, name), {})
        for part in STATE_PARTS:
            value = buffers.get(part)
            write_buffer(handle, part, None if value is None else value.to(device))
        for kind in (VALUE, BIAS):
            for value in parts.get((kind, name), {}).values():
                if kind == VALUE:
                    handle.write(value)
                else:
                    restore_bias(handle, value)
    quantization.originals = _by_handle(quantization.handles, parts, ORIGINAL)
    quantization.biases = _by_handle(quantization.handles, parts, OLD_BIAS)
    _restore_observations(quantization, parts, data)
    quantization.is_compressed = bool(data["is_compressed"])
    quantization.is_handed_over = bool(data["handed_over"])
    quantization.has_kept_batches = bool(data.get("kept_batches", False))
    _restore_learned(quantization, parts)


def _device(handle: Handle) -> torch.device:
    for tensor in handle.module.parameters():
        return tensor.device
    return torch.device("cpu")


def _by_handle(handles: Iterable[Handle], parts: Parts, kind: str) -> dict[Handle, Tensor]:
    return {
        handle: parts[kind, handle.plan.name][""].to(handle.raw.device)
        for handle in handles
        if (kind, handle.plan.name) in parts
    }


def _restore_observations(
    quantization: Quantization, parts: Parts, data: Mapping[str, Json]
) -> None:
    for run in quantization.runs:
        run.observed = {}
        for handle in run.all_handles:
            name = handle.plan.name
            if (OBSERVED, name) in parts:
                run.observed[handle] = dict(parts[OBSERVED, name])
            if (SEEN, name) in parts:
                about = data["seen"][name]
                quantization.seen[handle] = Seen(
                    handle,
                    run.quantize_step(handle).cut,
                    run.observer(handle),
                    {
                        part: tensor.to(_device(handle))
                        for part, tensor in parts[SEEN, name].items()
                    },
                    int(about["count"]),
                    tuple(about["shape"]),
                    tuple(about["blocks"]),
                )


def _restore_learned(quantization: Quantization, parts: Parts) -> None:
    moved: dict[int, dict[int, dict[str, Tensor]]] = {}
    for (kind, name), values in parts.items():
        if kind == MOVED:
            number, _, index = name.partition(".")
            moved.setdefault(int(number), {})[int(index)] = values
    for run in quantization.runs:
        leaves = [
            leaf
            for handle in (*run.parameters, *run.activations)
            if (LEARNED, handle.plan.name) in parts
            for leaf in place_leaves(
                run,
                handle,
                parts[LEARNED, handle.plan.name],
                seen=quantization.seen.get(handle),
            )
        ]
        if leaves and not quantization.is_handed_over:
            run.make_optimizer(leaves)
            if run.optimizer is not None and run.number in moved:
                whole = run.optimizer.state_dict()
                run.optimizer.load_state_dict({**whole, "state": moved[run.number]})
