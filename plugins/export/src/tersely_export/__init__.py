"""The face of tersely-export: which formats there are; imports no torch."""

from __future__ import annotations

import tersely

tersely_api = 1

_ONNX = {
    "type": "object",
    "properties": {
        "opset": {
            "description": "The version of the ONNX operators.",
            "type": "integer",
            "minimum": 21,
            "maximum": 23,
        },
        "accuracy_level": {
            "description": "The type in which blocks of 4 bits are multiplied when the file is "
            "checked: 0 the fastest, 1 float32, 4 int8.",
            "enum": [0, 1, 4],
        },
        "external_data": {
            "description": "Whether weights are stored in a separate file; always above 2 GB.",
            "type": "boolean",
        },
        "least_cosine": {
            "description": "The least cosine between the outputs of onnxruntime and of the "
            "session.",
            "type": "number",
            "minimum": 0,
            "maximum": 1,
        },
        "exact_sums": {
            "description": "Whether the check uses sums that cannot overflow on processors without "
            "VNNI (session.x64quantprecision).",
            "type": "boolean",
        },
    },
    "additionalProperties": False,
}


_LEAST_COSINE = {
    "description": "The least cosine between the outputs of the runtime and of the session.",
    "type": "number",
    "minimum": 0,
    "maximum": 1,
}

_EXECUTORCH = {
    "type": "object",
    "properties": {"least_cosine": _LEAST_COSINE},
    "additionalProperties": False,
}

_TORCHAO = {
    "type": "object",
    "properties": {"least_cosine": _LEAST_COSINE},
    "additionalProperties": False,
}

_SHARD_BYTES = {
    "description": "The most bytes of tensors in one file; more are written as shards with an "
    "index.",
    "type": "integer",
    "minimum": 1,
}

_COMPRESSED_TENSORS = {
    "type": "object",
    "properties": {
        "shard_bytes": _SHARD_BYTES,
        "unlike_layers": {
            "description": "Whether layers that read the same tensor, which runtimes load as one, "
            "may be quantized differently.",
            "enum": ["refuse", "allow"],
        },
        "least_cosine": {
            "description": "The least cosine between the outputs of transformers and of the "
            "session.",
            "type": "number",
            "minimum": 0,
            "maximum": 1,
        },
        "new_tokens": {
            "description": "How many tokens the check generates with both.",
            "type": "integer",
            "minimum": 1,
        },
    },
    "additionalProperties": False,
}


_SAFETENSORS = {
    "type": "object",
    "properties": {"shard_bytes": _SHARD_BYTES},
    "additionalProperties": False,
}


@tersely.hookimpl
def tersely_exporters() -> list[tersely.ExporterInfo]:
    """Return the formats of this distribution."""
    return [
        tersely.ExporterInfo(
            name="gguf",
            implementation="tersely_export.gguf:Gguf",
            suffix=".gguf",
            summary="Blocks of 32 with float16 scales, for readers of GGUF.",
        ),
        tersely.ExporterInfo(
            name="onnx",
            implementation="tersely_export.onnx:Onnx",
            suffix=".onnx",
            options=_ONNX,
            summary="ONNX with integer weights, for onnxruntime and OpenVINO.",
        ),
        tersely.ExporterInfo(
            name="compressed_tensors",
            implementation="tersely_export.compressed_tensors:CompressedTensors",
            options=_COMPRESSED_TENSORS,
            summary="Packed weights in a folder, for transformers and vLLM.",
        ),
        tersely.ExporterInfo(
            name="safetensors",
            implementation="tersely_export.safetensors:Safetensors",
            suffix=".safetensors",
            holds=("float_zero_points", "levels"),
            options=_SAFETENSORS,
            summary="Packed integers without zeros, described in the file, for any reader.",
        ),
        tersely.ExporterInfo(
            name="executorch",
            implementation="tersely_export.executorch:Executorch",
            suffix=".pte",
            is_reproducible=False,
            options=_EXECUTORCH,
            summary="A program for phones and other devices, its layers in XNNPACK.",
        ),
        tersely.ExporterInfo(
            name="torchao",
            implementation="tersely_export.torchao:Torchao",
            suffix=".pt",
            options=_TORCHAO,
            summary="A state dict of torchao's tensors, for PyTorch itself.",
        ),
        tersely.ExporterInfo(
            name="pt2",
            implementation="tersely_export.pt2:Pt2",
            suffix=".pt2",
            is_reproducible=False,
            holds=("float_zero_points",),
            summary="The exported program of PyTorch, for torch.export.load.",
        ),
    ]
