"""What tersely-integrations says of itself, and what it knows of Transformers' own layers."""

import subprocess
import sys

import pytest
import torch
from transformers.pytorch_utils import Conv1D

import tersely

FRAMEWORKS = ("torch", "lightning", "transformers", "accelerate")


def test_it_is_usable():
    [record] = [
        one for one in tersely.registry().plugins() if one.distribution == "tersely-integrations"
    ]
    assert (record.state, record.provides) == ("ok", ())


def test_the_face_imports_neither_torch_nor_a_framework():
    code = f"import sys, tersely_integrations; assert not {{*{FRAMEWORKS}}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.fixture
def layer():
    layer = Conv1D(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -4.0, 2.0], [-2.0, 5.0, 0.5]]))
    return torch.nn.Sequential(layer)


def test_an_output_of_a_conv1d_is_a_column_of_its_weight(layer):
    session = tersely.prune(layer, [{"op_types": ["Conv1D"], "sparse_ratio": 0.34}])
    # Columns sum up to 3, 9 and 2.5: one of three goes, the last.
    masks = session.masks()["0"]
    assert masks["weight"].tolist() == [[True, True, False], [True, True, False]]
    assert masks["bias"].tolist() == [True, True, False]


def test_a_conv1d_has_a_scale_for_each_output(layer):
    entry = {"op_types": ["Conv1D"], "target_names": ["weight"], "granularity": "per_channel"}
    session = tersely.attach(layer, {"quantization": {"algorithm": "qat", "config_list": [entry]}})
    session.compress()
    scale = session.qparams()["0"]["weight"].scale
    torch.testing.assert_close(scale.flatten(), torch.tensor([2.0, 5.0, 2.0]) / 127)
