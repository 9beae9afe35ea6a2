"""The format executorch: programs run by ExecuTorch's runtime, layers by XNNPACK."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import tersely
from tersely.exporting.export import make_exporter
from tersely.testing import check_exporter

pytest.importorskip("executorch.exir")
pytestmark = pytest.mark.filterwarnings("ignore")  # of what executorch imports

ROOT = Path(__file__).parents[3]
SEQUENCES = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
BY_TOKEN = {"quant_dtype": "uint8", "quant_scheme": "affine", "granularity": "per_token"}
BOTH = ["_input_", "weight"]


@pytest.fixture
def layers():
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32))


def images():
    """A convolution, a depthwise one, and a layer after them."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def test_the_exporter_keeps_its_contract():
    check_exporter("executorch")


@pytest.mark.parametrize(
    ("preset", "build", "batch"),
    [
        ("w8a8_dynamic", lambda: nn.Sequential(nn.Linear(64, 32)), SEQUENCES),
        ("w8a8", images, IMAGES),
    ],
)
def test_a_bias_that_is_off_by_less_than_rounding_is_noticed(
    preset, build, batch, tmp_path, monkeypatch
):
    def export(offset):
        torch.manual_seed(0)
        model = build().eval()
        session = tersely.quantize(model, preset=preset, runtime="executorch", data=[batch])
        with torch.no_grad():
            model[0].bias[0] += offset
        return session.export("executorch", tmp_path / "m.pte", example_inputs=batch)

    data = export(0).paths[0].read_bytes()

    def write(self, source, path):
        path.write_bytes(data)
        return [path]

    monkeypatch.setattr(type(make_exporter("executorch").exporter), "write", write)
    with pytest.raises(tersely.ExportError, match="holds other weights, scales or biases"):
        export(1e-3)


@pytest.mark.parametrize(
    ("weight", "size"),
    [
        ({"granularity": "out_channel"}, 1),
        ({"granularity": "out_channel", "quant_dtype": "int4"}, 0.5),
    ],
    ids=["int8", "int4"],
)
def test_inputs_by_token_are_computed_as_in_the_session(quantized, layers, tmp_path, weight, size):
    settings = {"weight": weight, "_input_": BY_TOKEN}
    session = quantized(
        layers, SEQUENCES, algorithm="rtn", target_names=BOTH, target_settings=settings
    )

    exported = session.export(
        "executorch", tmp_path / "m.pte", example_inputs=SEQUENCES, dynamic_shapes="batch"
    )

    assert exported.checks["layers_within_one_step"] == exported.checks["layers_compared"] == 2
    assert exported.checks["largest_difference"] < 1e-5
    assert exported.bytes < size * 64 * 96 + 6000
    other = torch.randn(1, 5, 64)
    run = make_exporter("executorch").exporter.load(exported.paths[0], threads=1)
    assert torch.allclose(run(other)[0], layers(other), atol=1e-5)


def test_scales_of_groups_are_rounded_to_bfloat16(quantized, layers, tmp_path):
    settings = {
        "weight": {"granularity": {"group": 32}, "quant_dtype": "int4"},
        "_input_": BY_TOKEN,
    }
    session = quantized(
        layers, SEQUENCES, algorithm="rtn", target_names=BOTH, target_settings=settings
    )

    exported = session.export("executorch", tmp_path / "m.pte", example_inputs=SEQUENCES)

    assert 0.9999 < exported.checks["cosine"] < 1 - 1e-7


@pytest.mark.parametrize(
    ("preset", "build", "batch"),
    [
        ("w8a8", images, IMAGES),
        ("w8a8_dynamic", lambda: nn.Sequential(nn.Linear(64, 32)), SEQUENCES),
        ("w4a8_dynamic", lambda: nn.Sequential(nn.Linear(128, 32)), torch.ones(4, 128).tril()),
    ],
)
def test_every_preset_for_executorch_is_written(preset, build, batch, tmp_path):
    stage = {"preset": preset, "for": "executorch"}
    session = tersely.attach(build().eval(), {"quantization": stage})
    session.calibrate([batch])
    session.compress()

    exported = session.export("executorch", tmp_path / "m.pte", example_inputs=batch)

    assert exported.checks["cosine"] > 0.9995
    if preset == "w8a8":
        assert exported.checks["layers_within_one_step"] == 3


@pytest.mark.parametrize(
    ("entry", "target", "reason"),
    [
        ({"target_names": ["weight"]}, "0.weight", "quantize the layer's input too"),
        (
            {"target_names": BOTH, "target_settings": {"weight": {"granularity": "out_channel"}}},
            "0._input_",
            "add _output_",
        ),
        (
            {"target_names": BOTH, "algorithm": "rtn"},
            "0._input_",
            "take granularity per_token",
        ),
        (
            {"target_names": BOTH, "target_settings": {"_input_": BY_TOKEN}, "algorithm": "rtn"},
            "0.weight",
            "take out_channel",
        ),
        (
            {
                "target_names": BOTH,
                "target_settings": {"_input_": BY_TOKEN, "weight": {"granularity": {"group": 32}}},
                "algorithm": "rtn",
            },
            "0.weight",
            "take int4 and such a group",
        ),
        (
            {
                "target_names": BOTH,
                "target_settings": {
                    "weight": {
                        "quant_dtype": "uint8",
                        "quant_scheme": "affine",
                        "granularity": "out_channel",
                    },
                },
            },
            "2.weight",
            "take quant_scheme symmetric",
        ),
        ({"target_names": ["_output_"]}, "0._output_", "layers with integer weights"),
        ({"target_names": BOTH, "quant_dtype": "int4"}, "0._input_", "rounds to 8 bits"),
    ],
)
def test_what_the_runtime_cannot_take_is_refused_by_name(
    quantized, layers, tmp_path, entry, target, reason
):
    session = quantized(layers, SEQUENCES, **entry)

    with pytest.raises(tersely.ExportError) as caught:
        session.export("executorch", tmp_path / "m.pte", example_inputs=SEQUENCES)

    refused = {one.target: one.reason for one in caught.value.refusals}
    assert reason in refused[target]
    assert list(tmp_path.iterdir()) == []


class Doubled(nn.Linear):
    def forward(self, given):
        return nn.functional.linear(given, self.weight * 2, self.bias)


def test_what_xnnpack_turns_down_is_refused_by_name(quantized, tmp_path):
    settings = {"weight": {"granularity": "out_channel"}, "_input_": BY_TOKEN}
    session = quantized(
        nn.Sequential(Doubled(64, 64)),
        SEQUENCES,
        algorithm="rtn",
        op_types=["Doubled"],
        target_names=BOTH,
        target_settings=settings,
    )

    with pytest.raises(tersely.ExportError, match="0: XNNPACK does not take it"):
        session.export("executorch", tmp_path / "m.pte", example_inputs=SEQUENCES)

    assert list(tmp_path.iterdir()) == []


def test_the_page_shows_how_to_run_it(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "exporting.md").read_text(encoding="utf-8")
    (block,) = re.findall(
        r"```\{code-block\} python\n:caption: executorch_phone.py\n(.*?)```", text, re.S
    )
    monkeypatch.chdir(tmp_path)

    exec(compile(block, "executorch_phone.py", "exec"), {})
