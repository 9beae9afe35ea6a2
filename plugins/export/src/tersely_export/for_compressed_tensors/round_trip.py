"""The check of a folder of compressed tensors in transformers: integers, outputs and tokens."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from compressed_tensors.quantization import QuantizationScheme
from safetensors import safe_open
from torch import Tensor
from transformers.utils import logging

import tersely
from tersely.contracts import IntegerWeight
from tersely_export.agreement import compare, detached_inputs, tensors_of
from tersely_export.for_compressed_tensors.loading import WEIGHTS, class_of
from tersely_export.for_compressed_tensors.running import run_compressed
from tersely_export.for_compressed_tensors.schemes import layers_of
from tersely_export.grids import bits_of, signed
from tersely_export.tensor_files import shard_files


def check_folder(
    source: tersely.ExportSource,
    path: Path,
    *,
    inputs: Any,
    least_cosine: float,
    new_tokens: int,
) -> dict[str, Any]:
    """Compare a written folder with the session.

    Args:
        source: the session.
        path: the folder.
        inputs: inputs of the model, or None.
        least_cosine: the least cosine between the outputs.
        new_tokens: the number of tokens to generate with both.

    Raises:
        ExportError: a weight differs, or the loaded model's outputs differ.
    """
    checks: dict[str, Any] = _compare_weights(source, path / WEIGHTS)
    is_dequantized = any(
        one.format == "pack-quantized" and not one.weights["symmetric"] for one in layers_of(source)
    )
    model = load_model(source, path, dequantize=is_dequantized)
    if is_dequantized:
        checks["loads_with"] = "CompressedTensorsConfig(dequantize=True)"
    if inputs is None:
        return checks
    inputs = detached_inputs(inputs)
    expected = tensors_of(source.simulate(inputs))
    found = tensors_of(_outputs(model, inputs))
    checks |= compare(found[:1], expected[:1], least_cosine=least_cosine)
    if isinstance(inputs, Mapping) and "input_ids" in inputs and model.can_generate():
        checks |= _compare_tokens(source, model, inputs["input_ids"], new_tokens)
    return checks


def _outputs(model: Any, inputs: Any) -> Any:
    with torch.no_grad(), _quiet():
        return run_compressed(
            model, lambda: model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
        )


def load_model(source: tersely.ExportSource, path: Path, *, dequantize: bool) -> Any:
    """Load a folder as users do, with the class of the session's model.

    Args:
        source: the session.
        path: the folder.
        dequantize: whether to dequantize weights while they are loaded.
    """
    cls = class_of(source.model)
    options = {}
    if dequantize:
        options["quantization_config"] = transformers.CompressedTensorsConfig(dequantize=True)
    with _quiet():
        return cls.from_pretrained(path, **options).eval()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    is_shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        # compressed-tensors shows progress bars that cannot be turned off.
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
        if is_shown:
            logging.enable_progress_bar()


def _compare_weights(source: tersely.ExportSource, path: Path) -> dict[str, Any]:
    files = shard_files(path)
    schemes = {one.module: one.scheme for one in layers_of(source)}
    stored = exact = 0
    for name in source.integers:
        module = name.rpartition(".")[0]
        scheme = QuantizationScheme(targets=[module], **schemes[module])
        size, is_exact = _compare_weight(source, name, files, scheme)
        stored += size
        exact += is_exact
    return {
        "integer_weights_equal": len(source.integers),
        "weights_equal": exact,
        "bytes_of_weights": stored,
    }


def _compare_weight(
    source: tersely.ExportSource,
    name: str,
    files: Mapping[str, Path],
    scheme: QuantizationScheme,
) -> tuple[int, bool]:
    """Return the bytes of a weight in the files, and whether its values are the session's."""
    weight, module = source.integers[name], name.rpartition(".")[0]
    compressor = BaseCompressor.get_value_from_registry(scheme.format)
    parts = {
        one: _read(files, f"{module}.{one}") for one in compressor.compression_param_names(scheme)
    }
    if not torch.equal(_integers(parts, weight), _stored(weight)):
        raise tersely.ExportError("compressed-tensors reads different integers", target=name)
    expected = weight.dequantize().cpu()
    found = compressor.decompress(parts, scheme)["weight"].to(weight.dtype)
    size = sum(one.numel() * one.element_size() for one in parts.values())
    return size, torch.equal(found, expected)


def _read(files: Mapping[str, Path], name: str) -> Tensor:
    with safe_open(files[name], framework="pt") as stream:
        tensor: Tensor = stream.get_tensor(name)
    return tensor


def _integers(parts: Mapping[str, Tensor], weight: IntegerWeight) -> Tensor:
    if "weight_packed" not in parts:
        return parts["weight"]
    shape = torch.Size(parts["weight_shape"].tolist())
    values: Tensor = unpack_from_int32(parts["weight_packed"], bits_of(weight) or 0, shape)
    return values


def _stored(weight: IntegerWeight) -> Tensor:
    bits = bits_of(weight)
    return (weight.values if bits is None else signed(weight, bits)[0]).cpu()


def _compare_tokens(
    source: tersely.ExportSource, loaded: Any, prompt: Tensor, count: int
) -> dict[str, Any]:
    """Compare the tokens that the session generates, each after the session's own before it.

    A greedy search that chose another token at one place would go on from there, so that both
    searches have the same tokens exactly if both choose the same at each place.
    """
    simulated: Any = source.model
    options = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False}
    modes = {module: module.training for module in simulated.modules()}
    simulated.eval()
    try:
        with torch.no_grad(), _quiet():
            written = simulated.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
    finally:
        for module, is_training in modes.items():
            module.training = is_training
    if simulated.config.is_encoder_decoder:
        inputs = {"input_ids": prompt, "decoder_input_ids": written}
        start = 1
    else:
        inputs = {"input_ids": written, "attention_mask": torch.ones_like(written)}
        start = prompt.shape[1]
    expected, found = (
        tensors_of(one)[0][:, start - 1 : -1].argmax(-1)
        for one in (source.simulate(inputs), _outputs(loaded, inputs))
    )
    return {"tokens_generated": found.numel(), "tokens_equal": int((found == expected).sum())}
