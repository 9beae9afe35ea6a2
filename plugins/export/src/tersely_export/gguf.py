"""GGUF with blocks of 32 integers that share a float16 scale, under the model's own names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import attrs
import numpy
import torch

import tersely
from tersely.contracts import IntegerWeight
from tersely_export.grids import bits_of, grid_of, has_zero_points, refused_numbers, signed
from tersely_export.libraries import need_libraries
from tersely_export.masks import refused_masks
from tersely_export.names import kept_floats

_BLOCK = 32
_EIGHT_BITS, _FOUR_BITS = 8, 4
_MOST_ROUNDING = 0.1
"""The steps by which the largest integer may move when its scale is rounded to float16."""


@attrs.frozen
class Gguf:
    """Writes tensors as Q8_0, Q4_0, Q4_1 and float16; the check reads them with gguf's reader."""

    def __attrs_post_init__(self) -> None:
        """Check that the library is installed before anything is computed."""
        need_libraries("gguf", "gguf")

    def refusals(self, source: tersely.ExportSource) -> Sequence[tersely.Refusal]:
        """Return the targets for which the format has no type.

        Args:
            source: the session.
        """
        reason = "the format only holds weights; leave inputs and outputs out"
        found = [tersely.Refusal(reason, one.name) for one in source.activations]
        found += refused_masks(source)
        for name, weight in source.integers.items():
            refusal = refused_numbers(name, weight) or _refused(name, weight)
            if refusal is not None:
                found.append(refusal)
        for name in kept_floats(source):
            value = source.floats[name]
            if value.ndim > 1 and float(value.abs().max()) > torch.finfo(torch.float16).max:
                reason = "it has values above 65504, which float16 does not hold; quantize it"
                found.append(tersely.Refusal(reason, name))
        return found

    def write(self, source: tersely.ExportSource, path: Path) -> Sequence[Path]:
        """Write the tensors, one at a time.

        Args:
            source: the session.
            path: the file.
        """
        # Late: asking for refusals, as a job does at its start, needs no gguf.
        from gguf import GGMLQuantizationType, GGUFWriter

        writer = GGUFWriter(str(path), arch="tersely")
        makers: list[Callable[[], numpy.ndarray]] = []
        for name in kept_floats(source):
            make = partial(_half, source, name)
            half = make()
            writer.add_tensor_info(name, half.shape, half.dtype, half.nbytes)
            makers.append(make)
        for name, weight in source.integers.items():
            kind = _type_of(weight)
            make_packed = partial(_packed, source, name)
            packed = make_packed()
            writer.add_tensor_info(
                name, packed.shape, packed.dtype, packed.nbytes, GGMLQuantizationType[kind]
            )
            makers.append(make_packed)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for make_one in makers:
            writer.write_tensor_data(make_one())
        writer.close()
        return [path]

    def check(self, source: tersely.ExportSource, path: Path) -> Mapping[str, object]:
        """Read every weight with gguf's own reader and compare it with the session's.

        Args:
            source: the session.
            path: the file.

        Raises:
            ExportError: a weight differs by more than rounding its scale to float16 explains, or
                another tensor differs.
        """
        # Late, as in `write`.
        from gguf import GGUFReader, dequantize

        tensors = {one.name: one for one in GGUFReader(str(path)).tensors}
        worst, size = 0.0, 0
        for name, weight in source.integers.items():
            held = tensors[name]
            size += int(held.n_bytes)
            found = torch.from_numpy(dequantize(held.data, held.tensor_type).copy())
            # Before rounding to the model's dtype, which may be narrower than the file's.
            levels = weight.values.cpu().reshape(-1, _BLOCK).float()
            scale, zero_point = (
                torch.from_numpy(_runs(weight, part))[:, None]
                for part in (weight.qparams.scale, weight.qparams.zero_point)
            )
            expected = (levels - zero_point) * scale
            steps = (found.reshape(-1, _BLOCK) - expected).abs() / scale
            error = float(steps.max())
            if error > 2 * _MOST_ROUNDING:
                raise tersely.ExportError(
                    f"gguf reads another weight, {error:.3g} steps apart", target=name
                )
            worst = max(worst, error)
        others = kept_floats(source)
        for name in others:
            if not numpy.array_equal(tensors[name].data, _half(source, name), equal_nan=True):
                raise tersely.ExportError("gguf reads another tensor", target=name)
        return {
            "weights_compared": len(source.integers),
            "other_tensors_equal": len(others),
            "largest_error_in_steps": worst,
            "bytes_of_weights": size,
        }


def _refused(name: str, weight: IntegerWeight) -> tersely.Refusal | None:
    bits, grid = bits_of(weight) or 0, grid_of(weight)
    if weight.values.shape[-1] % _BLOCK or grid.kind == "other" or grid.group % _BLOCK:
        return tersely.Refusal(
            f"the format has blocks of {_BLOCK} along the last dimension, and this has "
            f"{grid} at the shape {list(weight.values.shape)}; take granularity group: {_BLOCK}, "
            "where the last dimension is a multiple of it",
            name,
        )
    if bits > _FOUR_BITS and has_zero_points(weight, bits):
        return tersely.Refusal(
            "the format only has zero points for 4 bits; take quant_scheme symmetric, or uint4",
            name,
        )
    scale = weight.qparams.scale.float()
    most = max(abs(weight.qparams.quant_min), weight.qparams.quant_max)
    if bool((((scale.half().float() - scale).abs() * most) > _MOST_ROUNDING * scale).any()):
        return tersely.Refusal(
            "its scales do not fit float16, which holds 6e-5 to 65504; leave it out", name
        )
    return None


def _type_of(weight: IntegerWeight) -> str:
    bits = bits_of(weight) or 0
    if bits > _FOUR_BITS:
        return "Q8_0"
    return "Q4_1" if has_zero_points(weight, bits) else "Q4_0"


def _runs(weight: IntegerWeight, part: torch.Tensor) -> numpy.ndarray:
    """Return a scale or zero point for each run of 32 of a weight, shape (runs,), float32."""
    shape, size = weight.values.shape, grid_of(weight).size
    if part.numel() == 1:
        found = part.reshape(1).expand(weight.values.numel() // _BLOCK)
    else:
        counts = [whole // one for whole, one in zip(shape, size, strict=True)]
        found = part.reshape(counts)
        for dim, one in enumerate(size):
            is_last = dim == len(size) - 1
            found = found.repeat_interleave(one // _BLOCK if is_last else one, dim)
    array: numpy.ndarray = found.detach().float().cpu().reshape(-1).numpy()
    return array


def _half(source: tersely.ExportSource, name: str) -> numpy.ndarray:
    value = source.floats[name].cpu()
    # Vectors stay float32, which runtimes expect of norms and biases.
    value = value.half() if value.ndim > 1 else value.float()
    array: numpy.ndarray = value.reshape(value.shape or (1,)).numpy()
    return array


def _packed(source: tersely.ExportSource, name: str) -> numpy.ndarray:
    weight = source.integers[name]
    bits, kind = bits_of(weight) or 0, _type_of(weight)
    values, zero_point = signed(weight, bits)
    rows = values.cpu().reshape(-1, _BLOCK).numpy()
    scale = _runs(weight, weight.qparams.scale)[:, None]
    parts: list[numpy.ndarray] = [scale.astype(numpy.float16).view(numpy.uint8)]
    if kind == "Q8_0":
        parts.append(rows.view(numpy.uint8))
    else:
        if kind == "Q4_1":
            least = -(_runs(weight, zero_point)[:, None] + 8) * scale
            parts.append(least.astype(numpy.float16).view(numpy.uint8))
        levels = (rows + 8).astype(numpy.uint8)
        half = _BLOCK // 2
        parts.append(levels[:, :half] | numpy.left_shift(levels[:, half:], numpy.uint8(_FOUR_BITS)))
    found = numpy.concatenate(parts, axis=1)
    shape = tuple(weight.values.shape)
    return found.reshape(*shape[:-1], shape[-1] // _BLOCK * found.shape[1])
