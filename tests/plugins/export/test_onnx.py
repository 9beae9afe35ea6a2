"""The format onnx, read by onnxruntime: integers, kernels, layers and outputs."""

import numpy
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from messages.sessions import STAYS_INSTRUMENTED
from torch import nn

import tersely
from tersely.testing import check_exporter
from tersely_export.for_onnx import round_trip

INPUTS = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
SEQUENCES = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
UINT8 = {"quant_dtype": "uint8", "quant_scheme": "affine"}
PER_CHANNEL = {"granularity": "per_channel"}
WEIGHT_AND_INPUT = ["_input_", "weight"]


def settings(**of_input):
    return {"weight": PER_CHANNEL, "_input_": of_input}


def all_integer(checks):
    return checks["integer_kernels"] == checks["quantized_products"] > 0


def all_within_one_step(checks):
    return checks["layers_within_one_step"] == checks["layers_compared"] > 0


def operators_of(path):
    return [node.op_type for node in onnx_ir.load(path).graph]


def test_the_exporter_keeps_its_contract():
    check_exporter("onnx")


@pytest.mark.parametrize("batch", [INPUTS, SEQUENCES], ids=["rows", "sequences"])
@pytest.mark.parametrize(
    ("algorithm", "of_input"),
    [
        ("ptq", UINT8),
        ("ptq", {"quant_dtype": "int8"}),
        ("ptq", {"granularity": "per_token"}),
        ("ptq", {"granularity": "per_token", **UINT8}),
        ("rtn", UINT8),
        ("rtn", {"quant_dtype": "int8"}),
    ],
    ids=["static_uint8", "static_int8", "token_int8", "token_uint8", "call_uint8", "call_int8"],
)
def test_every_product_of_rounded_inputs_runs_as_integers(
    quantized, layers, tmp_path, batch, algorithm, of_input
):
    session = quantized(
        layers,
        batch,
        algorithm=algorithm,
        target_names=WEIGHT_AND_INPUT,
        target_settings=settings(**of_input),
    )

    exported = session.export(
        "onnx", tmp_path / "m.onnx", example_inputs=batch, dynamic_shapes="batch"
    )

    assert all_integer(exported.checks)
    assert all_within_one_step(exported.checks)
    assert exported.checks["cosine"] > 0.9999


@pytest.mark.parametrize("batch", [INPUTS, SEQUENCES], ids=["rows", "sequences"])
@pytest.mark.parametrize("dtype", [{"quant_dtype": "int4"}, {**UINT8, "quant_dtype": "uint4"}])
def test_blocks_of_four_bits_are_packed_and_multiplied_by_their_own_kernel(
    quantized, layers, tmp_path, batch, dtype
):
    session = quantized(
        layers,
        batch,
        algorithm="rtn",
        target_names=["weight"],
        granularity={"group": 16},
        **dtype,
    )

    exported = session.export("onnx", tmp_path / "m.onnx", example_inputs=batch)

    assert exported.checks["kernels"] == {"MatMulNBits": 2}
    assert exported.checks["accuracy_level"] == 4
    weight = onnx_ir.load(exported.paths[0]).graph.initializers["0.weight"]
    assert weight.dtype in (onnx_ir.DataType.INT4, onnx_ir.DataType.UINT4)
    assert weight.const_value.nbytes == 32 * 64 // 2


@pytest.mark.parametrize("of_weight", [{"quant_dtype": "int4"}, {**UINT8, "quant_dtype": "uint4"}])
def test_more_blocks_than_torch_folds_constants_of_are_packed_too(quantized, tmp_path, of_weight):
    model, rows = nn.Sequential(nn.Linear(512, 520)), torch.randn(1, 3, 512)
    entry = {"target_names": ["weight"], "granularity": {"group": 32}, **of_weight}
    session = quantized(model, rows, algorithm="rtn", **entry)

    exported = session.export("onnx", tmp_path / "m.onnx", example_inputs=rows)

    assert 512 * 520 // 32 > 8192
    assert exported.checks["kernels"] == {"MatMulNBits": 1}
    assert operators_of(exported.paths[0]) == ["DequantizeLinear", "MatMul", "Sum"]


def test_the_accuracy_level_decides_what_blocks_are_multiplied_in(quantized, layers, tmp_path):
    session = quantized(
        layers,
        SEQUENCES,
        algorithm="rtn",
        target_names=["weight"],
        quant_dtype="int4",
        granularity={"group": 16},
    )

    errors = {}
    for level in (1, 4):
        exported = session.export(
            "onnx",
            tmp_path / "m.onnx",
            example_inputs=SEQUENCES,
            options={"accuracy_level": level},
        )
        errors[level] = exported.checks["largest_difference"]

    assert errors[1] < 1e-5 < errors[4]


@pytest.mark.parametrize("is_finished", [False, True], ids=["attached", "finished"])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.filterwarnings(f"ignore:{STAYS_INSTRUMENTED}")
def test_convolutions_with_folded_norms_are_integer_kernels(
    quantized, tmp_path, affine, is_finished
):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8, affine=affine),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=2),
    )
    images = torch.randn(4, 3, 8, 8)
    model(images)
    session = quantized(
        model,
        images,
        op_types=["Conv2d"],
        target_names=["_input_", "weight", "_output_"],
        fuse_names=[["0", "1", "2"]],
        target_settings={"weight": PER_CHANNEL, "_input_": UINT8, "_output_": UINT8},
    )
    if is_finished:
        session.finalize()

    exported = session.export(
        "onnx", tmp_path / "m.onnx", example_inputs=images, dynamic_shapes="batch"
    )

    assert exported.checks["kernels"] == {"QLinearConv": 2}
    assert all_within_one_step(exported.checks)


def test_a_small_file_holds_nothing_that_its_readers_fill_in(quantized, layers, tmp_path):
    session = quantized(layers, INPUTS, target_names=WEIGHT_AND_INPUT, target_settings=settings())
    exported = session.export("onnx", tmp_path / "m.onnx", example_inputs=INPUTS)

    graph = onnx.load(exported.paths[0]).graph
    assert {one.name for one in graph.value_info} == {"0.weight", "2.weight"}  # their layout
    assert not any(node.name for node in graph.node)
    assert {node.op_type: len(node.attribute) for node in graph.node}["QuantizeLinear"] == 0


def test_an_int32_bias_goes_into_the_product(quantized, layers, tmp_path):
    session = quantized(
        layers,
        SEQUENCES,
        target_names=["_input_", "weight", "bias"],
        target_settings={
            **settings(**UINT8),
            "bias": {"quant_dtype": "int32", "quant_scheme": "symmetric"},
        },
    )

    exported = session.export("onnx", tmp_path / "m.onnx", example_inputs=SEQUENCES)

    assert exported.checks["integer_weights_equal"] == 4
    assert all_integer(exported.checks)


class Turned(nn.Module):
    """A layer whose weight is (inputs, outputs), as GPT-2 of transformers has it."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, given):
        rows = torch.addmm(self.bias, given.view(-1, given.shape[-1]), self.weight)
        return rows.view(*given.shape[:-1], -1)


def test_blocks_along_the_inputs_of_a_turned_weight_have_their_kernel(quantized, tmp_path):
    session = quantized(
        nn.Sequential(Turned(32, 64), nn.ReLU(), Turned(64, 32)),
        SEQUENCES,
        algorithm="rtn",
        op_types=["Turned"],
        target_names=["weight"],
        quant_dtype="int4",
        granularity=[16, 1],
    )

    exported = session.export(
        "onnx", tmp_path / "m.onnx", example_inputs=SEQUENCES, dynamic_shapes="batch"
    )

    assert exported.checks["kernels"] == {"MatMulNBits": 2}
    assert all_within_one_step(exported.checks)
    assert exported.bytes < 2 * 64 * 32 // 2 + 6000


@pytest.mark.parametrize("algorithm", ["ptq", "rtn"])
def test_a_turned_weight_by_output_channel_is_an_integer_product(quantized, tmp_path, algorithm):
    session = quantized(
        nn.Sequential(Turned(32, 64), nn.ReLU(), Turned(64, 32)),
        SEQUENCES,
        algorithm=algorithm,
        op_types=["Turned"],
        target_names=WEIGHT_AND_INPUT,
        target_settings={"weight": {"granularity": [-1, 1]}, "_input_": UINT8},
    )

    exported = session.export("onnx", tmp_path / "m.onnx", example_inputs=SEQUENCES)

    assert all_integer(exported.checks)
    assert all_within_one_step(exported.checks)


class Sliced(nn.Module):
    """Its nodes have other numbers once torch.onnx has left out what does nothing."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        self.head = nn.Linear(32, 50, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        found = self.embedding(tokens.view(-1, tokens.shape[-1]))
        return self.head(found[:, slice(0, None), :][:, -1:, :])


def test_layers_are_found_under_the_names_of_the_program(quantized, tmp_path):
    tokens = torch.randint(0, 50, (2, 7))
    session = quantized(Sliced(), tokens, op_types=["Embedding"], target_names=["weight"])

    exported = session.export("onnx", tmp_path / "m.onnx", example_inputs=tokens)

    assert all_within_one_step(exported.checks)


class Twice(nn.Module):
    """One layer in two calls."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(32, 32)

    def forward(self, given):
        return self.layer(self.layer(given).tanh())


def test_each_call_of_a_layer_is_compared(quantized, tmp_path):
    session = quantized(Twice(), INPUTS, target_names=WEIGHT_AND_INPUT, target_settings=settings())

    exported = session.export("onnx", tmp_path / "m.onnx", example_inputs=INPUTS)

    assert exported.checks["layers_compared"] == exported.checks["quantized_products"] == 2
    assert all_within_one_step(exported.checks)


def test_an_error_of_a_first_call_is_not_hidden_by_the_next(quantized, tmp_path, monkeypatch):
    session = quantized(Twice(), INPUTS, target_names=WEIGHT_AND_INPUT, target_settings=settings())
    apart = iter([5.0, 0.0])
    monkeypatch.setattr(round_trip, "_steps_apart", lambda *_: next(apart))

    with pytest.raises(tersely.ExportError, match=r"layer: .* 5\.0 steps apart"):
        session.export("onnx", tmp_path / "m.onnx", example_inputs=INPUTS)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        self.head = nn.Linear(32, 50, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.embedding(tokens))


def test_a_tied_embedding_is_stored_once_and_read_by_rows(quantized, tmp_path):
    tokens = torch.randint(0, 50, (2, 7))
    session = quantized(Tied(), tokens, op_types=["Embedding"], target_names=["weight"])

    exported = session.export("onnx", tmp_path / "m.onnx", example_inputs=tokens)

    assert exported.bytes < 2 * 50 * 32 + 4000
    (gather,) = (node for node in onnx_ir.load(exported.paths[0]).graph if node.op_type == "Gather")
    assert gather.inputs[0].name == "embedding.weight"


def test_the_batch_may_have_another_length(quantized, layers, tmp_path):
    session = quantized(layers, INPUTS, target_names=WEIGHT_AND_INPUT)
    exported = session.export(
        "onnx", tmp_path / "m.onnx", example_inputs=INPUTS, dynamic_shapes="batch"
    )
    runtime = onnxruntime.InferenceSession(exported.paths[0])
    other = torch.randn(9, 32)

    (found,) = runtime.run(None, {runtime.get_inputs()[0].name: other.numpy()})

    assert numpy.allclose(found, session.model(other).detach().numpy(), atol=1e-2)


def test_weights_lie_in_a_file_of_their_own_where_it_is_said(quantized, layers, tmp_path):
    session = quantized(layers, INPUTS, target_names=["weight"], **PER_CHANNEL)

    exported = session.export(
        "onnx", tmp_path / "m.onnx", example_inputs=INPUTS, options={"external_data": True}
    )

    main, data = exported.paths
    assert data.name.startswith("m.onnx.")
    assert data.suffix == ".data"
    assert onnxruntime.InferenceSession(main).run(None, {"input": INPUTS.numpy()})[0].shape == (
        4,
        32,
    )


def test_a_file_with_other_integers_is_an_error(quantized, layers, tmp_path, monkeypatch):
    from tersely_export.for_onnx import model as onnx_model

    def save(model, path, *, is_external):
        held = model.graph.initializers["0.weight"]
        held.const_value = onnx_ir.tensor(held.const_value.numpy() // 2, name="0.weight")
        onnx_ir.save(model, path)
        return [path]

    monkeypatch.setattr(onnx_model, "save_model", save)
    session = quantized(layers, INPUTS, target_names=["weight"])

    with pytest.raises(tersely.ExportError, match=r"0\.weight: the file holds other integers"):
        session.export("onnx", tmp_path / "m.onnx", example_inputs=INPUTS)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("entry", "target", "reason"),
    [
        (
            {"target_names": ["weight"], "quant_dtype": "uint16"},
            "0.weight",
            "uint16 has no type of ONNX",
        ),
        (
            {"target_names": ["_input_"], "quant_dtype": "uint16"},
            "0._input_",
            "uint16 inputs and outputs have no kernels",
        ),
        (
            {"target_names": ["weight"], "granularity": [16, 8]},
            "0.weight",
            "this has blocks of 16 x 8; take granularity out_channel or a group",
        ),
    ],
)
def test_what_onnx_cannot_hold_is_refused_by_name(
    quantized, layers, tmp_path, entry, target, reason
):
    session = quantized(layers, INPUTS, **entry)

    with pytest.raises(tersely.ExportError) as caught:
        session.export("onnx", tmp_path / "m.onnx", example_inputs=INPUTS)

    assert caught.value.target == target
    assert reason in caught.value.reason
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_names_the_command(monkeypatch, quantized, layers, tmp_path):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    session = quantized(layers, INPUTS, target_names=["weight"])

    with pytest.raises(tersely.MissingExtraError, match=r'pip install "tersely-export\[onnx\]"'):
        session.export("onnx", tmp_path / "m.onnx", example_inputs=INPUTS)


@pytest.mark.filterwarnings("ignore")  # of libraries that transformers imports
def test_a_transformer_runs_as_integers(quantized, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        vocab_size=100,
    )
    batch = {
        "input_ids": torch.randint(0, 100, (2, 7)),
        "attention_mask": torch.ones(2, 7, dtype=torch.long),
    }
    session = quantized(
        transformers.BertModel(config),
        batch,
        target_names=WEIGHT_AND_INPUT,
        target_settings=settings(**UINT8),
    )

    exported = session.export(
        "onnx", tmp_path / "m.onnx", example_inputs=batch, dynamic_shapes="batch"
    )

    assert all_integer(exported.checks)
    assert exported.checks["quantized_products"] == 13
    assert all_within_one_step(exported.checks)
    assert "Sum" in operators_of(exported.paths[0])


@pytest.mark.parametrize(
    ("shape", "dynamic_shapes"),
    [
        ((16, 32), None),
        ((1, 7, 32), None),
        ((4, 7, 32), None),
        ((4, 7, 32), "batch"),
        ((2, 3, 7, 32), None),
        ((2, 3, 7, 32), "batch"),
    ],
)
def test_linear_layers_run_as_integers_whatever_shape_their_inputs_have(
    quantized, tmp_path, layers, shape, dynamic_shapes
):
    inputs = torch.randn(shape)
    session = quantized(
        layers, inputs, target_names=WEIGHT_AND_INPUT, target_settings=settings(**UINT8)
    )

    exported = session.export(
        "onnx", tmp_path / "m.onnx", example_inputs=inputs, dynamic_shapes=dynamic_shapes
    )

    assert exported.checks["quantized_products"] == 2
    assert all_integer(exported.checks)


@pytest.mark.filterwarnings("ignore::tersely.errors.CompressionWarning")  # products in floats
@pytest.mark.parametrize("dtype", ["int8", "uint4"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_grouped_transposed_convolutions_have_a_scale_for_each_output_channel(
    dims, dtype, tmp_path
):
    torch.manual_seed(0)
    cls = getattr(nn, f"ConvTranspose{dims}d")
    model = nn.Sequential(cls(8, 12, 3, groups=2, stride=2), nn.ReLU(), cls(12, 4, 1, groups=4))
    images = torch.randn(2, 8, *[4] * dims)
    scheme = "symmetric" if dtype == "int8" else "affine"
    entry = {"op_types": [cls.__name__], "target_names": ["weight"], "quant_dtype": dtype}
    entry |= {"quant_scheme": scheme, "granularity": "per_channel"}
    session = tersely.quantize(model.eval(), [entry], algorithm="rtn", data=[images])

    exported = session.export("onnx", tmp_path / "m.onnx", example_inputs=images)

    checks = exported.checks
    assert session.qparams()["0"]["weight"].scale.numel() == 12
    assert checks["integer_weights_equal"] == checks["layers_compared"] == 2
    assert all_within_one_step(checks)
    assert checks["largest_difference"] < 1e-5
    assert not {"Reshape", "Transpose"} & set(operators_of(exported.paths[0]))


def test_a_tied_head_that_alone_is_selected_is_found_under_the_name_of_the_embedding(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(64, 32), nn.Linear(32, 64))
    model[1].weight = model[0].weight
    tokens = torch.randint(0, 64, (2, 8))
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "int4"}
    entry["granularity"] = {"group": 32}
    session = tersely.quantize(model.eval(), [entry], algorithm="rtn", data=[tokens])

    exported = session.export("onnx", tmp_path / "m.onnx", example_inputs=tokens)

    assert exported.checks["integer_weights_equal"] == 1
    assert exported.checks["cosine"] > 0.99
