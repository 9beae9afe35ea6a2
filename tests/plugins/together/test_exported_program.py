"""Session.export_program: the session as one graph with real integers."""

import copy
import io

import pytest
import torch
from torch import nn

import tersely

INPUTS = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
SEQUENCES = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
BATCH = {0: torch.export.Dim("batch")}
PER_CHANNEL = {"weight": {"granularity": "per_channel"}}
UINT8 = {"quant_dtype": "uint8", "quant_scheme": "affine"}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def layers():
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))


def recipe(algorithm="ptq", *, op_types=("Linear",), **entry):
    entry.setdefault("target_names", ["weight"])
    config = [{"op_types": list(op_types), **entry}]
    return {"quantization": {"algorithm": algorithm, "config_list": config}}


def compressed(model, document, batch=None):
    session = tersely.attach(model.eval(), document)
    if batch is not None:
        session.calibrate([batch])
    session.compress()
    return session


def operators_of(program):
    return {
        str(node.target).removeprefix("quantized_decomposed.").partition(".")[0]
        for node in program.graph.nodes
        if "quantized_decomposed" in str(node.target)
    }


def need_integers(session, program):
    """Check that the program holds the session's integers, under the names of the weights."""
    found = session.integer_weights()
    assert found
    for module, targets in found.items():
        for target, integers in targets.items():
            stored = program.state_dict[f"{module}.{target}"]
            assert stored.dtype == integers.values.dtype
            assert torch.equal(stored, integers.values)


def outputs_of(model, *inputs):
    with torch.no_grad():
        return model(*inputs)


@pytest.mark.parametrize(
    ("entry", "operator"),
    [
        ({}, "dequantize_per_tensor"),
        ({"target_settings": PER_CHANNEL}, "dequantize_per_channel"),
        (
            {"quant_dtype": "int4", "granularity": {"group": 16}},
            "dequantize_per_channel_group",
        ),
        ({"quant_dtype": "uint4", "quant_scheme": "affine"}, "dequantize_per_tensor"),
        ({"granularity": [4, 4]}, "dequantize_per_channel"),
        ({"quant_dtype": "int16"}, "dequantize_per_tensor"),
    ],
)
def test_weights_are_integers_behind_the_operator_of_their_granularity(entry, operator):
    session = compressed(layers(), recipe(**entry))

    program = session.export_program(INPUTS)

    need_integers(session, program)
    assert operators_of(program) == {operator}
    assert torch.equal(outputs_of(program.module(), INPUTS), outputs_of(session.model, INPUTS))


@pytest.mark.parametrize(
    "settings",
    [
        UINT8,
        {"quant_dtype": "int8"},
        {"target_settings": {"_input_": {"granularity": "per_channel"}}},
        {"quant_dtype": "uint4", "quant_scheme": "affine"},
    ],
)
def test_inputs_and_outputs_are_rounded_with_the_scales_in_force(settings):
    document = recipe(target_names=["_input_", "weight", "_output_"], **settings)
    session = compressed(layers(), document, INPUTS)

    program = session.export_program(INPUTS)

    found = outputs_of(program.module(), INPUTS)
    assert torch.allclose(found, outputs_of(session.model, INPUTS), atol=1e-6)


@pytest.mark.parametrize(
    ("algorithm", "settings", "operator"),
    [
        ("ptq", {"target_settings": {"_input_": {"granularity": "per_token"}}}, "per_token"),
        ("rtn", {}, "per_tensor"),
    ],
)
def test_inputs_are_rounded_by_each_calls_own_range(algorithm, settings, operator):
    document = recipe(algorithm, target_names=["_input_", "weight"], **settings)
    session = compressed(layers(), document, INPUTS)

    program = session.export_program(INPUTS, BATCH)

    assert f"quantize_{operator}" in operators_of(program)
    other = torch.randn(3, 32) * 7
    assert torch.allclose(
        outputs_of(program.module(), other), outputs_of(session.model, other), atol=1e-6
    )


def test_the_batch_may_have_another_length_where_it_is_said_to():
    session = compressed(layers(), recipe(target_names=["_input_", "weight"]), INPUTS)

    program = session.export_program(INPUTS, BATCH)

    assert outputs_of(program.module(), torch.randn(3, 32)).shape == (3, 32)


def test_masks_are_baked():
    pruning = {"algorithm": "l1_norm", "config_list": [{"op_names": ["0"], "sparse_ratio": 0.5}]}
    session = compressed(layers(), {"pruning": pruning})

    program = session.export_program(INPUTS)

    weight = program.state_dict["0.weight"]
    assert torch.equal(weight == 0, ~session.masks()["0"]["weight"])
    assert set(program.state_dict) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_folded_norms_are_part_of_their_layer():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    images = torch.randn(4, 3, 8, 8)
    model(images)
    document = recipe(
        op_types=["Conv2d"], target_names=["_input_", "weight"], fuse_names=[["0", "1", "2"]]
    )
    session = compressed(model, document, images)

    program = session.export_program(images)

    assert set(program.state_dict) == {"0.weight", "0.bias"}
    assert not any("batch_norm" in str(node.target) for node in program.graph.nodes)
    assert torch.allclose(
        outputs_of(program.module(), images), outputs_of(session.model, images), atol=1e-6
    )


def test_biases_are_int32_in_the_terms_of_their_accumulator():
    bias = {"bias": {"quant_dtype": "int32", "quant_scheme": "symmetric"}, **PER_CHANNEL}
    document = recipe(target_names=["_input_", "weight", "bias"], target_settings=bias)
    session = compressed(layers(), document, INPUTS)

    program = session.export_program(INPUTS)

    need_integers(session, program)
    assert program.state_dict["0.bias"].dtype == torch.int32


@pytest.mark.parametrize(
    ("algorithm", "entry"),
    [
        ("smoothquant", {"target_names": ["_input_", "weight"]}),
        ("awq", {"quant_dtype": "int4", "granularity": {"group": 16}}),
        ("gptq", {}),
        ("adaround", {}),
        ("lsq", {"target_names": ["_input_", "weight"]}),
        ("qat", {"target_names": ["_input_", "weight"]}),
    ],
)
def test_what_an_algorithm_made_of_weights_and_inputs_is_exported(algorithm, entry):
    session = compressed(layers(), recipe(algorithm, **entry), INPUTS)

    program = session.export_program(INPUTS)

    need_integers(session, program)
    found = outputs_of(program.module(), INPUTS)
    assert torch.allclose(found, outputs_of(session.model, INPUTS), atol=1e-6)


class Reading(nn.Module):
    """Attention and a recurrent layer, whose weights are read without calling their module."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.recurrent = nn.LSTM(16, 16, batch_first=True)

    def forward(self, values):
        return self.recurrent(self.attention(values, values, values)[0])[0]


def test_weights_that_are_read_without_calling_their_module_are_integers():
    config = [
        {"op_names": ["attention"], "target_names": ["in_proj_weight"]},
        {"op_names": ["attention.out_proj"], "target_names": ["weight"]},
        {"op_names": ["recurrent"], "target_names": ["weight_ih_l0", "weight_hh_l0"]},
    ]
    document = {"quantization": {"algorithm": "ptq", "config_list": config}}
    session = compressed(Reading(), document)
    before = [one.data_ptr() for one in session.model.recurrent._parameters.values()]

    program = session.export_program(SEQUENCES)

    need_integers(session, program)
    assert torch.allclose(
        outputs_of(program.module(), SEQUENCES), outputs_of(session.model, SEQUENCES), atol=1e-6
    )
    assert [one.data_ptr() for one in session.model.recurrent._parameters.values()] == before


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.embedding(tokens))


@pytest.mark.parametrize(
    "document",
    [
        recipe(op_types=["Embedding"], granularity="per_channel"),
        {
            "pruning": {
                "algorithm": "level",
                "config_list": [{"op_types": ["Embedding"], "sparse_ratio": 0.5}],
            }
        },
    ],
)
def test_a_tied_weight_is_held_once(document):
    tokens = torch.arange(6).reshape(2, 3)
    session = compressed(Tied(), document)

    program = session.export_program(tokens)

    assert [name for name in program.state_dict if name.endswith("weight")] == ["embedding.weight"]
    assert torch.equal(outputs_of(program.module(), tokens), outputs_of(session.model, tokens))


def test_the_session_goes_on_as_it_was():
    document = recipe(target_names=["_input_", "weight"])
    session = compressed(layers(), document, INPUTS)
    before = copy.deepcopy(session.model.state_dict())
    parameters = dict(session.model.named_parameters())

    session.export_program(INPUTS)

    after = session.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(one is parameters[name] for name, one in session.model.named_parameters())
    assert torch.equal(session.detach()[0].weight, parameters["0.weight"])


def test_a_session_that_cannot_be_exported_is_as_it_was():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(32, 32)

        def forward(self, values):
            return self.layer(values) if values.sum() > 0 else values

    session = compressed(Branching(), recipe())
    before = copy.deepcopy(session.model.state_dict())

    with pytest.raises(tersely.ExportError, match=r"torch\.export cannot follow Branching"):
        session.export_program(INPUTS)

    after = session.model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert isinstance(session.model.layer.weight, nn.Parameter | torch.Tensor)


def test_what_a_program_holds_does_not_change_with_the_model():
    session = compressed(layers(), recipe())
    program = session.export_program(INPUTS)
    before = outputs_of(program.module(), INPUTS)

    with torch.no_grad():
        session.model[0].bias.add_(1)

    assert torch.equal(outputs_of(program.module(), INPUTS), before)


@pytest.mark.parametrize("algorithm", ["ptq", "smoothquant"])
def test_a_finished_session_is_exported_alike(algorithm):
    document = recipe(algorithm, target_names=["_input_", "weight"])
    session = compressed(layers(), document, INPUTS)
    attached = outputs_of(session.export_program(INPUTS).module(), INPUTS)
    with pytest.warns(UserWarning, match="stay instrumented"):
        session.finalize()

    program = session.export_program(INPUTS)

    need_integers(session, program)
    assert torch.allclose(outputs_of(program.module(), INPUTS), attached, atol=1e-6)


def test_a_program_is_saved_and_loaded():
    session = compressed(layers(), recipe(target_names=["_input_", "weight"]), INPUTS)
    program = session.export_program(INPUTS)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)

    loaded = torch.export.load(file)

    expected = outputs_of(program.module(), INPUTS)
    assert torch.equal(outputs_of(loaded.module(), INPUTS), expected)


def test_float8_is_refused_with_every_target():
    document = recipe(quant_dtype="float8_e4m3fn", target_names=["_input_", "weight"])
    session = compressed(layers(), document, INPUTS)

    with pytest.raises(tersely.ExportError) as caught:
        session.export_program(INPUTS)

    assert {one.target for one in caught.value.refusals} == {
        "0.weight",
        "0._input_",
        "2.weight",
        "2._input_",
    }
    assert "float8_e4m3fn" in caught.value.reason


def test_scales_have_to_be_in_force():
    session = tersely.attach(layers(), recipe())

    with pytest.raises(tersely.SessionError, match=r"session\.compress\(\)"):
        session.export_program(INPUTS)


class Added(nn.Module):
    """Adds a linear layer of one input to the other."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, first, second):
        return self.linear(first) + second


@pytest.mark.parametrize("dynamic_shapes", ["batch", {"first": ["n"], "second": ["n"]}])
def test_a_program_made_from_one_row_takes_several(dynamic_shapes):
    model, row = Added(), torch.arange(3.0)[None]
    session = tersely.quantize(model, [{"op_types": ["Linear"], "target_names": ["weight"]}])

    program = session.export_program({"first": row, "second": row}, dynamic_shapes)

    for rows in (1, 2, 5):
        several = torch.randn(rows, 3)
        with torch.no_grad():
            expected = model(several, several)
        found = program.module()(first=several, second=several)
        assert torch.allclose(found, expected, atol=1e-6)
