"""Measures the file of the job ``deploy.yaml`` beside what else there is to choose, in a table.

From the root of the repository, after ``tersely run docs/examples/minilm/deploy.yaml``:
``python docs/examples/minilm/deploy_table.py``. It takes two minutes of one core.
"""

import argparse
import copy
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from deployed import example, held_out
from model import Batch, Sentences, load_teacher
from onnxruntime import InferenceSession, SessionOptions
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor

import tersely

HERE = Path(__file__).parent
Embedding = Callable[..., Tensor]


def in_onnxruntime(path: Path) -> Embedding:
    """Return what runs a file with one thread."""
    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def call(**batch: Tensor) -> Tensor:
        feeds = {name: tensor.numpy() for name, tensor in batch.items()}
        return torch.from_numpy(session.run(None, feeds)[0])

    return call


def quantized_by_onnxruntime(model: Sentences, folder: Path) -> Path:
    """Write the dense model, and what one line of onnxruntime makes of it.

    Args:
        model: the dense model.
        folder: where to write.
    """
    dense, path = folder / "dense.onnx", folder / "dynamic.onnx"
    batch, time = torch.export.Dim("batch"), torch.export.Dim("time", max=512)
    program = torch.onnx.export(
        model,
        kwargs=dict(example()),
        dynamo=True,
        dynamic_shapes={name: {0: batch, 1: time} for name in example()},
        verbose=False,
    )
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # paths of sources, whose length would count as size
    program.save(dense)
    logging.getLogger().setLevel(logging.ERROR)  # it advises a step that changes nothing here
    quantize_dynamic(dense, path, per_channel=True, weight_type=QuantType.QInt8)
    return path


def cosine(call: Embedding, dense: Embedding, data: list[Batch]) -> float:
    """Return the mean cosine of the embeddings that two models make of sentences."""
    with torch.no_grad():
        pairs = [(call(**batch).float(), dense(**batch)) for batch in data]
    return torch.cat([(one * other).sum(1) for one, other in pairs]).mean().item()


def ratios(calls: dict[str, Embedding], sentences: int, seconds: float) -> dict[str, float]:
    """Return the times of models as multiples of the first one's.

    Args:
        calls: the models.
        sentences: how many sentences of 128 tokens a call embeds.
        seconds: about how long to measure.
    """
    batch = {name: tensor[:sentences].contiguous() for name, tensor in example().items()}
    measured = tersely.benchmark(calls, batch, threads=1, seconds=seconds)
    return {one.name: one.ratio for one in measured.timings}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=HERE / "runs" / "deploy")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--batches", type=int, default=32)
    options = parser.parse_args()

    file = options.run / "exports" / "model.onnx"
    model = load_teacher()
    size = sum(one.numel() * one.element_size() for one in model.parameters())
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch.onnx says of itself
        theirs = quantized_by_onnxruntime(model, Path(folder))
        calls = {
            "float32, in PyTorch": model,
            "bfloat16, in PyTorch": copy.deepcopy(model).bfloat16(),
            "`quantize_dynamic` of onnxruntime": in_onnxruntime(theirs),
            "`exports/model.onnx`, in onnxruntime": in_onnxruntime(file),
        }
        sizes = (size, size // 2, theirs.stat().st_size, file.stat().st_size)
        bytes_of = dict(zip(calls, sizes, strict=True))
    alone, together = (ratios(calls, sentences, options.seconds) for sentences in (1, 16))
    print("| | bytes | of float32 | 1 sentence, of float32 | 16 sentences | cosine |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, call in calls.items():
        alike = cosine(call, model, held_out()[: options.batches])
        print(
            f"| {name} | {bytes_of[name]:,} | {bytes_of[name] / size:.3f} | {alone[name]:.2f} "
            f"| {together[name]:.2f} | {alike:.4f} |"
        )


if __name__ == "__main__":
    main()
