"""Every format and everything that can be quantized: written and read back, or refused by name.

What a format holds is read from the table of the documentation, so that the page is what is tested.
"""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import tersely
from tersely.exporting.export import make_exporter

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries that formats import

PAGE = Path(__file__).parents[3] / "docs" / "exporting.md"
LIBRARIES = {
    "compressed_tensors": ("compressed_tensors", "transformers"),
    "executorch": ("executorch.exir",),
    "gguf": ("gguf",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "pt2": (),
    "safetensors": (),
    "torchao": ("torchao",),
}
"""Format -> what it needs."""

CHANNEL = {"granularity": "out_channel"}
GROUP = {"granularity": {"group": 32}}
UINT8 = {"quant_dtype": "uint8", "quant_scheme": "affine"}
TOKEN = {**UINT8, "granularity": "per_token"}


def weight(dtype, scheme="symmetric", **entry):
    return "rtn", {"weight": {"quant_dtype": dtype, "quant_scheme": scheme, **entry}}


def beside(algorithm, **others):
    return algorithm, {"weight": CHANNEL, **others}


ROWS = {
    "int8 weights, one scale": weight("int8"),
    "int8 weights by output channel": weight("int8", **CHANNEL),
    "int8 weights in groups of 32": weight("int8", **GROUP),
    "int8 weights in blocks of 16 x 16": weight("int8", granularity=[16, 16]),
    "uint8 affine weights by output channel": weight("uint8", "affine", **CHANNEL),
    "int4 weights, one scale": weight("int4"),
    "int4 weights by output channel": weight("int4", **CHANNEL),
    "int4 weights in groups of 32": weight("int4", **GROUP),
    "uint4 affine weights in groups of 32": weight("uint4", "affine", **GROUP),
    "int3 weights in groups of 32": weight("int3", **GROUP),
    "uint4 weights in groups of 32, zero points between integers": (
        "between",
        {"weight": {"quant_dtype": "uint4", "quant_scheme": "affine", **GROUP}},
    ),
    "uint4 weights in groups of 32, a table of levels": (
        "quantiles",
        {"weight": {"quant_dtype": "uint4", **GROUP}},
    ),
    "int12 weights by output channel": weight("int12", **CHANNEL),
    "float8_e4m3fn weights by output channel": weight("float8_e4m3fn", **CHANNEL),
    "int8 weights, uint8 inputs with a known scale": beside("ptq", _input_=UINT8),
    "int8 weights, uint8 inputs with a scale at each call": beside("rtn", _input_=UINT8),
    "int8 weights, uint8 inputs with scales by token": beside("rtn", _input_=TOKEN),
    "int8 weights, int4 inputs": beside("ptq", _input_={"quant_dtype": "int4"}),
    "int4 weights in groups of 32, uint8 inputs by token": (
        "rtn",
        {"weight": {"quant_dtype": "int4", **GROUP}, "_input_": TOKEN},
    ),
    "int8 weights, inputs and outputs": beside("ptq", _input_={}, _output_={}),
    "int8 weights and inputs, int32 biases": beside(
        "ptq", _input_=UINT8, bias={"quant_dtype": "int32", "quant_scheme": "symmetric"}
    ),
    "int8 weights of convolutions": weight("int8", **CHANNEL),
    "int8 weights of embeddings": weight("int8", **CHANNEL),
    "int8 weights, masked inputs": weight("int8", **CHANNEL),
    "int8 weights, masked outputs": weight("int8", **CHANNEL),
    "int8 weights, inputs and outputs, masked inputs": beside("ptq", _input_={}, _output_={}),
}
"""What is quantized -> the algorithm, and the settings of the targets."""


MASKED = {"inputs": "_input_", "outputs": "_output_"}


def masks_of(row, kind):
    """The stages that mask what a row says is masked."""
    _, says_so, target = row.partition(", masked ")
    if not says_so:
        return {}
    entry = {
        "op_types": [kind],
        "exclude_op_names": ["lm_head"],
        "target_names": [MASKED[target]],
        "sparse_ratio": 0.25,
        "granularity": "per_channel",
    }
    return {"pruning": {"algorithm": "largest", "config_list": [entry]}}


def described():
    """Row -> format -> whether the documentation says that it is held."""
    rows = re.findall(r"^\| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    cells = [[cell.strip() for cell in f"{row} ".split("|")] for row in rows]
    (head,) = (one for one in cells if one[0] == "quantized")
    formats = [name.strip("`") for name in head[1:]]
    return {one[0]: dict(zip(formats, one[1:], strict=True)) for one in cells if one[0] in ROWS}


TABLE = described()


def language_model():
    import transformers

    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=64,
        bos_token_id=1,
        eos_token_id=2,
        attention_bias=True,
        mlp_bias=True,
    )
    return transformers.LlamaForCausalLM(config)


def model_of(row, format):
    """A model for a row, its inputs, and what selects its layers."""
    if "convolutions" in row:
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.randn(2, 3, 8, 8), "Conv2d"
    kind = "Embedding" if "embeddings" in row else "Linear"
    if format == "compressed_tensors":
        return language_model(), {"input_ids": torch.randint(0, 64, (2, 8))}, kind
    if kind == "Embedding":
        layers = nn.Sequential(nn.Embedding(32, 64), nn.Linear(64, 32))
        return layers, torch.randint(0, 32, (2, 8)), kind
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32)), torch.randn(4, 64), kind


def test_the_page_has_a_row_for_every_combination():
    assert list(TABLE) == list(ROWS)
    assert all(list(cells) == sorted(LIBRARIES) for cells in TABLE.values())


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("format", LIBRARIES)
@pytest.mark.usefixtures("other_grids")
@pytest.mark.filterwarnings("ignore::tersely.errors.CompressionWarning")  # products in floats
def test_it_is_held_or_refused_as_the_page_says(format, row, tmp_path):
    for library in LIBRARIES[format]:
        pytest.importorskip(library)
    algorithm, settings = ROWS[row]
    model, inputs, kind = model_of(row, format)
    entry = {
        "op_types": [kind],
        "exclude_op_names": ["lm_head"],
        "target_names": list(settings),
        "target_settings": settings,
    }
    stage = {"algorithm": algorithm, "config_list": [entry]}
    session = tersely.attach(model.eval(), {"quantization": stage, **masks_of(row, kind)})
    session.calibrate([inputs])
    session.compress()

    refusals, checks = (), {}
    try:
        checks = session.export(format, tmp_path / "written", example_inputs=inputs).checks
    except tersely.ExportError as error:
        refusals = error.refusals

    is_held = TABLE[row][format] == "yes"
    assert bool(checks) == is_held, refusals
    assert is_held or list(tmp_path.iterdir()) == []
    for refusal in refusals:
        assert refusal.target is not None or "models of transformers" in refusal.reason
        assert ";" in refusal.reason, "it does not say what would fit"


@pytest.mark.parametrize("format", LIBRARIES)
@pytest.mark.parametrize("when", ["write", "check"])
def test_what_was_there_stays_when_it_is_interrupted(format, when, tmp_path, monkeypatch):
    for library in LIBRARIES[format]:
        pytest.importorskip(library)
    row = "int8 weights, uint8 inputs with scales by token"
    if format == "gguf":
        row = "int8 weights by output channel"
    algorithm, settings = ROWS[row]
    model, inputs, _ = model_of(row, format)
    entry = {"op_types": ["Linear"], "target_names": list(settings), "target_settings": settings}
    document = {"quantization": {"algorithm": algorithm, "config_list": [entry]}}
    session = tersely.attach(model.eval(), document)
    session.calibrate([inputs])
    session.compress()
    exporter = type(make_exporter(format).exporter)
    write = exporter.write

    def interrupted(self, source, path):
        # What is written first lies there, and the rest does not.
        for one in write(self, source, path):
            for file in [one, *one.rglob("*")] if one.is_dir() else [one]:
                if file.is_file():
                    file.write_bytes(file.read_bytes()[:100])
        raise KeyboardInterrupt

    def stopped(self, source, path):
        raise KeyboardInterrupt

    monkeypatch.setattr(exporter, when, interrupted if when == "write" else stopped)
    place = tmp_path / "written"
    old = place / "config.json" if format == "compressed_tensors" else place  # it is a folder
    old.parent.mkdir(exist_ok=True)
    old.write_text("old")

    with pytest.raises(KeyboardInterrupt):
        session.export(format, place, example_inputs=inputs)

    assert old.read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]
