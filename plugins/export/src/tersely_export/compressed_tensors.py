"""The layout of compressed-tensors, which transformers and vLLM load."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

import tersely
from tersely.contracts import IntegerWeight
from tersely_export.for_compressed_tensors.loading import WEIGHTS, refused_shapes
from tersely_export.for_compressed_tensors.schemes import (
    groups_of,
    layers_of,
    refused_activations,
    refused_weights,
)
from tersely_export.for_compressed_tensors.sharing_inputs import layers_of_one_input, refused_unlike
from tersely_export.grids import bits_of, grid_of, signed
from tersely_export.libraries import need_libraries
from tersely_export.masks import refused_masks
from tersely_export.names import kept_floats, split_name
from tersely_export.tensor_files import LARGEST_SHARD, StoredTensor, write_shards

_WORD = 32
_ROWS = 256


@attrs.frozen
class CompressedTensors:
    """Writes a folder for `from_pretrained`; the check loads it and compares outputs.

    Attributes:
        shard_bytes: the most bytes of tensors in one file.
        unlike_layers: whether layers that runtimes fuse may be quantized differently.
        least_cosine: the least cosine between the outputs of transformers and of the session.
        new_tokens: the number of tokens that the check generates with both.
    """

    shard_bytes: int = LARGEST_SHARD
    unlike_layers: Literal["refuse", "allow"] = "refuse"
    least_cosine: float = 0.98
    new_tokens: int = 8

    def __attrs_post_init__(self) -> None:
        """Check that the libraries are installed before anything is computed."""
        need_libraries("compressed_tensors", "compressed_tensors", "transformers")

    def refusals(self, source: tersely.ExportSource) -> Sequence[tersely.Refusal]:
        """Return the targets that the format cannot hold.

        Args:
            source: the session.
        """
        if not hasattr(source.model, "save_pretrained"):
            reason = (
                "the format is for models of transformers, and this is a "
                f"{type(source.model).__name__}; export to onnx, pt2 or safetensors"
            )
            return [tersely.Refusal(reason)]
        found = [*refused_weights(source), *refused_activations(source), *refused_masks(source)]
        if found or not source.integers:
            return found or [tersely.Refusal("nothing is quantized; use save_pretrained")]
        inputs = example_of(source)
        if self.unlike_layers == "refuse" and inputs is not None:
            schemes = {one.module: one.scheme for one in layers_of(source)}
            found += refused_unlike(layers_of_one_input(source, inputs), schemes)
        return found or [*_refused_zero_points(source), *refused_shapes(source)]

    def write(self, source: tersely.ExportSource, path: Path) -> Sequence[Path]:
        """Write the configuration and the tensors, one at a time.

        Args:
            source: the session.
            path: the folder.
        """
        path.mkdir()
        write_shards([*_tensors(source)], path / WEIGHTS, largest=self.shard_bytes)
        model: Any = source.model
        config = copy.deepcopy(model.config)
        config.architectures = [type(model).__name__]
        config.dtype = _type_of(source)
        config.quantization_config = _quantization(source)
        config.save_pretrained(path)
        generation = getattr(model, "generation_config", None)
        if generation is not None:
            generation.save_pretrained(path)
        return [path]

    def check(self, source: tersely.ExportSource, path: Path) -> Mapping[str, object]:
        """Unpack every weight with the library, then load the model and compare its outputs.

        Args:
            source: the session.
            path: the folder.

        Raises:
            ExportError: the library reads other integers, or the model's outputs differ.
        """
        # Late: asking for refusals, as a job does at its start, needs no transformers.
        from tersely_export.for_compressed_tensors.round_trip import check_folder

        return check_folder(
            source,
            path,
            inputs=example_of(source),
            least_cosine=self.least_cosine,
            new_tokens=self.new_tokens,
        )


def example_of(source: tersely.ExportSource) -> Any:
    """Return the caller's example inputs, or the model's own, or None.

    Args:
        source: the session.
    """
    if source.example_inputs is not None:
        return source.example_inputs
    return getattr(source.model, "dummy_inputs", None)


def _refused_zero_points(source: tersely.ExportSource) -> Iterator[tersely.Refusal]:
    layers = layers_of(source)
    affine = [one for one in layers if _is_packed_affine(one.scheme)]
    if affine and len(groups_of(layers)) > 1:
        for one in affine:
            yield tersely.Refusal(
                "transformers reads packed weights with zero points only where all layers are "
                "quantized alike; take quant_scheme symmetric, or quantize all layers so",
                f"{one.module}.weight",
            )


def _is_packed_affine(scheme: Mapping[str, Any]) -> bool:
    return scheme["format"] == "pack-quantized" and not scheme["weights"]["symmetric"]


def _quantization(source: tersely.ExportSource) -> dict[str, Any]:
    # Late, as in `check`.
    from compressed_tensors.quantization import QuantizationConfig

    layers = layers_of(source)
    groups = groups_of(layers)
    formats = sorted({one.format for one in layers})
    known = {one.module for one in layers}
    others = [
        name
        for name, module in source.model.named_modules()
        if isinstance(module, torch.nn.Linear) and name not in known
    ]
    if len(groups) == 1:
        groups["group_0"]["targets"] = ["Linear"]
    config = QuantizationConfig.model_validate(
        {
            "config_groups": groups,
            "format": formats[0] if len(formats) == 1 else "mixed-precision",
            "quantization_status": "compressed",
            "ignore": others,
        }
    )
    return {**config.model_dump(mode="json"), "quant_method": "compressed-tensors"}


def _type_of(source: tersely.ExportSource) -> torch.dtype:
    return next(iter(source.integers.values())).dtype


def _tensors(source: tersely.ExportSource) -> Iterator[StoredTensor]:
    for name in kept_floats(source):
        tensor = source.floats[name]
        yield StoredTensor(
            name, tensor.dtype, tuple(tensor.shape), partial(source.floats.__getitem__, name)
        )
    layers = {one.module: one for one in layers_of(source)}
    for name, weight in source.integers.items():
        yield from _weight_tensors(source, name, weight, layers[split_name(name)[0]].scheme)
    for one in source.activations:
        if one.qparams is not None:
            yield from _input_tensors(one, dtype=_type_of(source))


def _weight_tensors(
    source: tersely.ExportSource, name: str, weight: IntegerWeight, scheme: Mapping[str, Any]
) -> Iterator[StoredTensor]:
    rows, columns = weight.values.shape
    bits = bits_of(weight) or 0
    read = partial(source.integers.__getitem__, name)
    shape = _scale_shape(weight)
    # Use the session's own scale, rather than a copy in the model's dtype for each weight.
    scale, dtype = weight.qparams.scale, weight.dtype
    yield StoredTensor(f"{name}_scale", dtype, shape, lambda: scale.to(dtype).reshape(shape))
    if scheme["format"] == "pack-quantized":
        words = -(-columns * bits // _WORD)
        yield StoredTensor(
            f"{name}_packed", torch.int32, (rows, words), lambda: _packed(read(), bits)
        )
        yield StoredTensor.of(f"{name}_shape", torch.tensor([rows, columns]))
        if not scheme["weights"]["symmetric"]:
            zero_point = signed(weight, bits)[1].reshape(shape)
            yield StoredTensor.of(f"{name}_zero_point", _pack(zero_point, bits, 0).contiguous())
        return
    if scheme["format"] == "float-quantized":
        yield StoredTensor(name, weight.values.dtype, (rows, columns), lambda: read().values)
        return
    yield StoredTensor(name, torch.int8, (rows, columns), lambda: signed(read(), bits)[0])
    if not scheme["weights"]["symmetric"]:
        zero_point = signed(weight, bits)[1].reshape(shape)
        yield StoredTensor.of(f"{name}_zero_point", zero_point)


def _scale_shape(weight: IntegerWeight) -> tuple[int, ...]:
    shape, kind = tuple(weight.qparams.scale.shape), grid_of(weight).kind
    if kind == "tensor":
        return (1,)
    rows = weight.values.shape[0]
    return (rows, math.prod(shape) // rows) if kind in ("channel", "group") else shape


def _packed(weight: IntegerWeight, bits: int) -> Tensor:
    # Packing takes several int32 for each value, so only some rows are packed at a time.
    values = signed(weight, bits)[0].cpu()
    starts = range(0, len(values), _ROWS)
    return torch.cat([_pack(values[start : start + _ROWS], bits, 1) for start in starts])


def _pack(values: Tensor, bits: int, dim: Literal[0, 1]) -> Tensor:
    # Late, as in `check`.
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    packed: Tensor = pack_to_int32(values, bits, packed_dim=dim)
    return packed


def _input_tensors(
    one: tersely.QuantizedActivation, *, dtype: torch.dtype
) -> Iterator[StoredTensor]:
    qparams = one.qparams
    assert qparams is not None  # asked by the caller
    yield StoredTensor.of(f"{one.module}.input_scale", qparams.scale.reshape(1).to(dtype))
    if one.scheme != "symmetric":
        shift = 128 if one.quant_min >= 0 else 0
        zero_point = (qparams.zero_point.reshape(1).to(torch.int16) - shift).to(torch.int8)
        yield StoredTensor.of(f"{one.module}.input_zero_point", zero_point)
