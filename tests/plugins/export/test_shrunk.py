"""Networks that lost half of their channels or heads, in onnxruntime: as they are, and in int8."""

import copy
import functools
import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy
import onnxruntime
import pytest
import torch
from torch.utils._pytree import tree_leaves

import tersely

SHRINKING = Path(__file__).parents[2] / "core" / "shrinking"
NETWORKS = {
    "vision": ["ShuffleNet"],
    "images": ["Swin"],
    "makers": ["Denoiser"],
    "sequences": ["Recogniser", "TwoTowers"],
}
"""Networks of ``gallery``, by file."""

ROUNDED = {
    "target_names": ["_input_", "weight"],
    "target_settings": {
        "weight": {"granularity": "per_channel"},
        "_input_": {"quant_dtype": "uint8", "quant_scheme": "affine"},
    },
}


def beside(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NAMED = [(file, name) for file, names in NETWORKS.items() for name in names]


@pytest.fixture(params=[pytest.param(one, marks=pytest.mark.xdist_group(one[1])) for one in NAMED])
def shrunk(request, other_grids):
    """A session whose model lost every other block of each group of channels, and its inputs."""
    return copy.deepcopy(make(*request.param))


@functools.cache
def make(file, name):
    gallery, masks = beside(SHRINKING / "gallery" / f"{file}.py"), beside(SHRINKING / "masks.py")
    made = getattr(gallery, name)
    ends = gallery.NETWORKS[made]
    ends = ends if isinstance(ends, dict) else {"ends": ends}
    model = made().eval()
    inputs = model.example() if hasattr(model, "example") else (torch.randn(2, 3, 16, 16),)
    kept = {}
    for target, mask in masks.half_of_all_groups(model, inputs, **ends).items():
        module, _, parameter = target.rpartition(".")
        kept.setdefault(module, {})[parameter] = mask
    config = [
        {"op_names": [module], "target_names": list(own), "sparse_ratio": 0.5}
        for module, own in kept.items()
    ]
    session = tersely.attach(model, {"pruning": {"algorithm": "largest", "config_list": config}})
    free = {(one.module, one.target) for one in session.plan.targets if one.setting.align is None}
    session.set_masks(
        {
            module: {key: mask for key, mask in own.items() if (module, key) in free}
            for module, own in kept.items()
        }
    )
    before = sum(one.numel() for one in model.parameters())
    session.shrink(inputs)
    assert sum(one.numel() for one in model.parameters()) < 0.8 * before
    return SimpleNamespace(session=session, inputs=inputs)


def outputs_of(path, inputs):
    """What onnxruntime computes of a file."""
    runtime = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [one.name for one in runtime.get_inputs()]
    fed = {name: one.numpy() for name, one in zip(names, inputs, strict=True)}
    return [torch.from_numpy(numpy.asarray(one)) for one in runtime.run(None, fed)]


def test_a_small_model_computes_in_onnxruntime_what_it_computes_in_torch(shrunk, tmp_path):
    with torch.no_grad():
        expected = tree_leaves(shrunk.session.model(*shrunk.inputs))

    shrunk.session.export("onnx", tmp_path / "small.onnx", example_inputs=shrunk.inputs)

    found = outputs_of(tmp_path / "small.onnx", shrunk.inputs)
    torch.testing.assert_close(found, list(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.* dequantizes these weights")  # products in floats
def test_a_small_model_in_int8_is_within_one_step_in_each_layer(shrunk, tmp_path):
    small = shrunk.session.finalize()
    types = sorted({type(one).__name__ for one in small.modules()} & {"Conv1d", "Conv2d", "Linear"})
    config = [{"op_types": types, **ROUNDED}]
    session = tersely.attach(small, {"quantization": {"algorithm": "ptq", "config_list": config}})
    session.calibrate([shrunk.inputs])
    session.compress()

    exported = session.export("onnx", tmp_path / "small.onnx", example_inputs=shrunk.inputs)

    checks = exported.checks
    assert checks["layers_within_one_step"] == checks["layers_compared"] > 0
    assert checks["cosine"] > 0.99
