"""Safetensors with packed integers and without masked zeros, described in the metadata.

The tensors of a weight ``w`` of n elements, as the metadata describes them:

    ==============  =========================  =================================================
    tensor          shape, type                where
    ==============  =========================  =================================================
    ``w``           its own                    not quantized and dense: nothing is said of it
    ``w.values``    (n,), own type             integers of 8, 16 and 32 bits, float8, kept floats
    ``w.values``    (ceil(n bits / 8),) uint8  other integers, ``bits`` each, less ``offset``
    ``w.kept``      (ceil(n / 8),) uint8       a bit for each element, where zeros are left out
    ``w.scale``     (blocks), float            quantized
    ``w.zero_point``  (blocks)                 quantized, and not zero everywhere; floats where an
                                               algorithm chooses them
    ``w.levels``    (levels,), float           the table into which the integers are indices
    ``w.input_scale``  (inputs,), float        factors of inputs that are not folded; of experts in
                                               one tensor (experts, inputs)
    ==============  =========================  =================================================

If zeros are left out, n is the number of elements that are kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import attrs
import numpy
import torch
from torch import Tensor

import tersely
from tersely.contracts import IntegerWeight
from tersely_export.bit_streams import pack_bits
from tersely_export.masks import refused_masks
from tersely_export.names import first_names, kept_floats
from tersely_export.safetensors_reader import SCHEMA_VERSION, StoredWeights, read_stored
from tersely_export.tensor_files import LARGEST_SHARD, StoredTensor, write_shards

_WHOLE_TYPES = {8: torch.uint8, 16: torch.int16, 32: torch.int32}
_MATRIX = 2
_EIGHT = 8
_PIECE = 1 << 18


@attrs.frozen
class Safetensors:
    """Writes weights in their own bits; the check reads all of them with NumPy alone.

    Attributes:
        shard_bytes: the most bytes of tensors in one file.
    """

    shard_bytes: int = LARGEST_SHARD

    def refusals(self, source: tersely.ExportSource) -> Sequence[tersely.Refusal]:
        """Return masked inputs and outputs; the format holds integers of any type and blocks.

        Args:
            source: the session.
        """
        return list(refused_masks(source))

    def write(self, source: tersely.ExportSource, path: Path) -> Sequence[Path]:
        """Write the tensors, one at a time.

        Args:
            source: the session.
            path: the file, or the prefix of the names of shards and their index.
        """
        tensors: list[StoredTensor] = []
        entries: dict[str, object] = {}
        for name in kept_floats(source):
            tensors += _float_tensors(source, name, entries)
        for name, weight in source.integers.items():
            tensors += _integer_tensors(source, name, weight, entries)
        activations: list[dict[str, object]] = []
        for one in source.activations:
            tensors += _activation_tensors(one, activations)
        stored = {*kept_floats(source), *source.integers}
        names = first_names(source.model).items()
        description = {
            "version": SCHEMA_VERSION,
            "tensors": entries,
            "activations": activations,
            "tied": {further: first for further, first in names if first in stored},
        }
        metadata = {"tersely": json.dumps(description)}
        return write_shards(
            tensors, path, largest=self.shard_bytes, metadata=metadata, is_apart=False
        )

    def check(self, source: tersely.ExportSource, path: Path) -> Mapping[str, object]:
        """Read every tensor with NumPy and compare it with the session's, bit for bit.

        Args:
            source: the session.
            path: the file.

        Raises:
            ExportError: a tensor differs.
        """
        stored = read_stored(path)
        size = 0
        for name, weight in source.integers.items():
            size += stored.size_of(name)
            if not _is_equal(torch.from_numpy(stored.integers(name)), weight.values.cpu()):
                raise tersely.ExportError("other integers were read back", target=name)
            _need_equal(name, stored, weight.dequantize())
        for name in source.floats:
            _need_equal(name, stored, source.floats[name])
        return {
            "integer_weights_equal": len(source.integers),
            "other_tensors_equal": len(source.floats),
            "bytes_of_weights": size,
        }


def _need_equal(name: str, stored: StoredWeights, expected: Tensor) -> None:
    # Not numpy.ascontiguousarray, which adds a dimension to scalars.
    if not _is_equal(torch.from_numpy(numpy.asarray(stored[name], order="C")), expected.cpu()):
        raise tersely.ExportError("another tensor was read back", target=name)


def _is_equal(found: Tensor, expected: Tensor) -> bool:
    """Compare two tensors of any types by value, without copies of their size."""
    if found.shape != expected.shape:
        return False
    pairs = found.reshape(-1), expected.reshape(-1)
    pieces = (
        [one[start : start + _PIECE].double().nan_to_num() for one in pairs]
        for start in range(0, found.numel(), _PIECE)
    )
    return all(torch.equal(one, other) for one, other in pieces)


def _float_tensors(
    source: tersely.ExportSource, name: str, entries: dict[str, object]
) -> Iterator[StoredTensor]:
    value = source.floats[name]
    read = partial(source.floats.__getitem__, name)
    kept = int(value.count_nonzero())
    bits = value.dtype.itemsize * _EIGHT
    if not value.dtype.is_floating_point or not _is_smaller(value, kept, bits):
        yield StoredTensor(name, value.dtype, tuple(value.shape), read)
        return
    entries[name] = {
        "shape": list(value.shape),
        "dtype": str(value.dtype).removeprefix("torch."),
        "values": f"{name}.values",
        "kept": f"{name}.kept",
    }
    yield StoredTensor(f"{name}.values", value.dtype, (kept,), lambda: _chosen(read(), read() != 0))
    yield _kept_tensor(name, value, lambda: read() != 0)


def _integer_tensors(
    source: tersely.ExportSource,
    name: str,
    weight: IntegerWeight,
    entries: dict[str, object],
) -> Iterator[StoredTensor]:
    qparams, values = weight.qparams, weight.values
    least = qparams.quant_min
    read = partial(source.integers.__getitem__, name)
    is_float8 = values.dtype.is_floating_point
    bits = _EIGHT if is_float8 else (qparams.quant_max - qparams.quant_min).bit_length()
    is_packed = bits not in _WHOLE_TYPES
    kept = _is_kept(weight)
    count = int(kept.count_nonzero())
    is_sparse = qparams.levels is None and _is_smaller(values, count, bits)
    count = count if is_sparse else values.numel()

    def make() -> Tensor:
        one = read()
        chosen = _chosen(one.values, _is_kept(one)) if is_sparse else one.values.reshape(-1).cpu()
        if not is_packed:
            return chosen
        return torch.from_numpy(pack_bits(chosen.numpy(), bits, offset=least))

    entry: dict[str, object] = {
        "shape": list(values.shape),
        "dtype": str(weight.dtype).removeprefix("torch."),
        "quant_dtype": qparams.dtype,
        "quant_min": qparams.quant_min,
        "quant_max": qparams.quant_max,
        "scheme": qparams.scheme,
        "values": f"{name}.values",
        "scale": f"{name}.scale",
    }
    if is_packed:
        entry |= {"bits": bits, "offset": qparams.quant_min}
        size = -(-count * bits // _EIGHT)
        yield StoredTensor(f"{name}.values", torch.uint8, (size,), make)
    else:
        yield StoredTensor(f"{name}.values", values.dtype, (count,), make)
    if is_sparse:
        entry["kept"] = f"{name}.kept"
        yield _kept_tensor(name, values, lambda: _is_kept(read()))
    yield StoredTensor.of(f"{name}.scale", _laid_out(weight, qparams.scale))
    if not is_float8 and bool(qparams.zero_point.any()):
        entry["zero_point"] = f"{name}.zero_point"
        yield StoredTensor.of(f"{name}.zero_point", _laid_out(weight, qparams.zero_point))
    if qparams.levels is not None:
        entry["levels"] = f"{name}.levels"
        yield StoredTensor.of(f"{name}.levels", qparams.levels)
    if weight.input_scale is not None:
        entry |= {
            "input_scale": f"{name}.input_scale",
            "input_dim": weight.input_dim,
            "input_scale_divides": "weight" if weight.divides_weight else "input",
        }
        yield StoredTensor.of(f"{name}.input_scale", weight.input_scale)
    entries[name] = entry


def _activation_tensors(
    one: tersely.QuantizedActivation, activations: list[dict[str, object]]
) -> Iterator[StoredTensor]:
    entry: dict[str, object] = {
        "name": one.name,
        "module": one.module,
        "is_input": one.is_input,
        "quant_dtype": one.dtype,
        "quant_min": one.quant_min,
        "quant_max": one.quant_max,
        "scheme": one.scheme,
        "blocks": one.blocks,
        "is_dynamic": one.is_dynamic,
    }
    if one.qparams is not None:
        entry |= {"scale": f"{one.name}.scale", "zero_point": f"{one.name}.zero_point"}
        yield StoredTensor.of(f"{one.name}.scale", one.qparams.scale)
        yield StoredTensor.of(f"{one.name}.zero_point", one.qparams.zero_point)
        if one.qparams.levels is not None:
            entry["levels"] = f"{one.name}.levels"
            yield StoredTensor.of(f"{one.name}.levels", one.qparams.levels)
    activations.append(entry)


def _is_smaller(value: Tensor, kept: int, bits: int) -> bool:
    # Vectors are too small to matter.
    count = value.numel()
    return value.ndim >= _MATRIX and kept * bits + count < count * bits


def _is_kept(weight: IntegerWeight) -> Tensor:
    """Return which integers do not represent zero, bool, the weight's shape."""
    values = weight.values
    if values.dtype.is_floating_point:
        return values.float() != 0
    zero_point = _laid_out(weight, weight.qparams.zero_point)
    # In blocks, so that zero points broadcast instead of being repeated.
    shape, counts = values.shape, zero_point.shape
    split = [part for n, m in zip(shape, counts, strict=True) for part in (m, n // m)]
    apart = zero_point.reshape([part for m in counts for part in (m, 1)])
    return (values.reshape(split) != apart).reshape(shape)


def _laid_out(weight: IntegerWeight, part: Tensor) -> Tensor:
    # As many dimensions as the weight, even with a single scale.
    return part.reshape((1,) * (weight.values.ndim - part.ndim) + tuple(part.shape))


def _chosen(value: Tensor, kept: Tensor) -> Tensor:
    # Not every device has a kernel for masks of float8.
    if value.dtype.itemsize == 1:
        return value.view(torch.uint8)[kept].view(value.dtype)
    return value[kept]


def _kept_tensor(name: str, value: Tensor, make: Callable[[], Tensor]) -> StoredTensor:
    def pack() -> Tensor:
        return torch.from_numpy(numpy.packbits(make().cpu().numpy().reshape(-1), bitorder="little"))

    return StoredTensor(f"{name}.kept", torch.uint8, (-(-value.numel() // _EIGHT),), pack)
