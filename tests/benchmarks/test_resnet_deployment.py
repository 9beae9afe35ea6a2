"""ResNet-18's shape as a file with integers, whole and with half of its channels removed.

Weights are at random, so only kernels, bytes and times are looked at. Times are ratios of one interleaved
run with one thread, with room for a machine that does other work; measured that way the whole network took
0.33 and 0.37 of onnxruntime's float32 at a batch of 1 and 16, and the one with half of its channels 0.08
and 0.07 of eager float32.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import tersely

pytestmark = [pytest.mark.benchmark, pytest.mark.usefixtures("_one_thread")]

PIXELS = 224
CONVOLUTIONS, LINEAR = 20, 1
BATCHES = (1, 16)


def in_onnxruntime(path: Path) -> Any:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    [name] = [one.name for one in session.get_inputs()]
    return lambda images: session.run(None, {name: images.numpy()})


def exported(model: torch.nn.Module, images: torch.Tensor, path: Path) -> tersely.Exported:
    session = tersely.quantize(
        model, preset="w8a8", runtime="onnxruntime", fuse_names="auto", data=[images]
    )
    return session.export("onnx", path, example_inputs=images, dynamic_shapes="batch")


def ratio(candidates: dict[str, Any], batch: int) -> float:
    """What the second candidate takes of the first."""
    images = torch.randn(batch, 3, PIXELS, PIXELS)
    measured = tersely.benchmark(candidates, images, threads=1, seconds=10)
    print(measured)  # noqa: T201  # the result
    found: float = measured.timings[1].ratio
    return found


@pytest.fixture
def dense(resnet: Any) -> Any:
    torch.manual_seed(0)
    return resnet.resnet18().eval()


@pytest.mark.filterwarnings("ignore")  # of torch.onnx about itself
def test_every_convolution_is_an_integer_kernel_and_takes_half_of_float32(
    dense: Any, tmp_path: Path
) -> None:
    images = torch.randn(2, 3, PIXELS, PIXELS)
    torch.onnx.export(
        dense,
        (images,),
        str(tmp_path / "dense.onnx"),
        dynamo=True,
        dynamic_shapes=({0: "batch"},),
        verbose=False,
    )
    written = exported(dense, images, tmp_path / "integers.onnx")

    assert written.checks["kernels"]["QLinearConv"] == CONVOLUTIONS
    assert written.checks["integer_kernels"] == CONVOLUTIONS + LINEAR
    candidates = {name: in_onnxruntime(tmp_path / f"{name}.onnx") for name in ("dense", "integers")}
    for batch in BATCHES:
        assert ratio(candidates, batch) < 0.48


@pytest.mark.filterwarnings("ignore")  # of torch.onnx about itself
def test_half_of_the_channels_in_eight_bits_take_a_seventh_of_eager(
    dense: Any, tmp_path: Path
) -> None:
    images = torch.randn(2, 3, PIXELS, PIXELS)
    model = copy.deepcopy(dense)
    size = sum(value.numel() * value.element_size() for value in dense.parameters())
    stage = {
        "algorithm": "l1_norm",
        "dependency_groups": "auto",
        "config_list": [{"op_types": ["Conv2d", "BatchNorm2d"], "sparse_ratio": 0.5}],
    }
    session = tersely.attach(model, {"pruning": stage}, example_inputs=images)
    session.compress()
    session.shrink(images)
    path = tmp_path / "small.onnx"
    written = exported(session.finalize(), images, path)

    assert written.checks["kernels"]["QLinearConv"] == CONVOLUTIONS
    assert written.bytes < 0.07 * size
    for batch in BATCHES:
        assert ratio({"dense": dense, "small": in_onnxruntime(path)}, batch) < 0.15
