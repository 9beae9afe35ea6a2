"""The format safetensors, read with the library of that name alone and with NumPy."""

import copy
import json

import numpy
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from torch import nn

import tersely
from tersely.exporting import into_place
from tersely.testing import check_exporter
from tersely_export.bit_streams import pack_bits, unpack_bits
from tersely_export.safetensors_reader import read_stored

INPUTS = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))


def described(path):
    with safe_open(path, framework="numpy") as stream:
        return json.loads(stream.metadata()["tersely"])


def test_the_exporter_keeps_its_contract():
    check_exporter("safetensors")


def test_bits_lie_lowest_first_one_after_the_other():
    # 3 bits each: 5 = 101, 2 = 010, 7 = 111, from the right: 1 11|01 0|101.
    stream = pack_bits(numpy.array([5, 2, 7]), 3)

    assert stream.tolist() == [0b11010101, 0b1]
    assert unpack_bits(stream, 3, 3).tolist() == [5, 2, 7]


@pytest.mark.parametrize("bits", range(1, 17))
def test_packed_integers_of_every_width_come_back(bits):
    values = numpy.random.default_rng(0).integers(0, 1 << bits, 1001)

    stream = pack_bits(values, bits)

    assert len(stream) == -(-1001 * bits // 8)
    assert numpy.array_equal(unpack_bits(stream, bits, 1001), values)


def test_the_library_alone_and_the_description_are_enough(quantized, layers, tmp_path):
    session = quantized(
        layers,
        INPUTS,
        target_names=["weight"],
        quant_dtype="uint4",
        quant_scheme="affine",
        granularity={"group": 16},
    )

    exported = session.export("safetensors", tmp_path / "m.safetensors")

    tensors, entry = load_file(exported.paths[0]), described(exported.paths[0])
    entry = entry["tensors"]["0.weight"]
    assert entry["bits"] == 4
    held = tensors[entry["values"]]
    levels = numpy.stack([held & 15, held >> 4], axis=1).reshape(64, 2, 16) + entry["offset"]
    scale, zero_point = tensors[entry["scale"]], tensors[entry["zero_point"]]
    weight = (levels - zero_point[..., None]).astype("float32") * scale[..., None]
    assert torch.equal(torch.from_numpy(weight.reshape(64, 32)), layers[0].weight)
    assert held.nbytes == 64 * 32 // 2


@pytest.mark.parametrize(
    "entry",
    [
        {"quant_dtype": "int8"},
        {"quant_dtype": "int3", "granularity": "out_channel"},
        {"quant_dtype": "int12", "granularity": [16, 8]},
        {"quant_dtype": "uint16", "quant_scheme": "affine"},
        {"quant_dtype": "float8_e4m3fn", "granularity": "out_channel"},
        {"quant_dtype": "float8_e5m2"},
    ],
    ids=lambda entry: entry["quant_dtype"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_type_is_read_bit_for_bit(quantized, layers, tmp_path, entry, dtype):
    model = layers.to(dtype)
    session = quantized(model, INPUTS.to(dtype), target_names=["weight"], **entry)

    session.export("safetensors", tmp_path / "m.safetensors")

    found = read_stored(tmp_path / "m.safetensors")["2.weight"]
    assert torch.equal(torch.from_numpy(found).to(dtype), model[2].weight)


def test_zeros_are_left_out(tmp_path):
    model = nn.Linear(64, 64)
    session = tersely.prune(model, [{"op_types": ["Linear"], "sparse_ratio": 0.75}])

    exported = session.export("safetensors", tmp_path / "m.safetensors")

    # A quarter of the floats and a bit for each element.
    assert load_file(exported.paths[0])["weight.values"].nbytes == 64 * 64
    assert load_file(exported.paths[0])["weight.kept"].nbytes == 64 * 64 // 8
    found = read_stored(exported.paths[0])
    assert sorted(found) == ["bias", "weight"]
    assert torch.equal(torch.from_numpy(found["weight"]), model.weight)


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
def test_zeros_of_packed_integers_are_left_out(tmp_path, scheme):
    model = nn.Linear(64, 64)
    kind = {"quant_dtype": "int8" if scheme == "symmetric" else "uint8", "quant_scheme": scheme}
    recipe = {
        "pruning": {
            "algorithm": "l1_norm",
            "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5, "granularity": "2:4"}],
        },
        "quantization": {
            "algorithm": "rtn",
            "config_list": [{"op_types": ["Linear"], "target_names": ["weight"], **kind}],
        },
    }
    session = tersely.attach(model, recipe)
    session.compress()

    exported = session.export("safetensors", tmp_path / "m.safetensors")

    assert exported.checks["integer_weights_equal"] == 1
    tensors = load_file(exported.paths[0])
    assert tensors["weight.values"].size <= 64 * 64 // 2
    assert exported.checks["bytes_of_weights"] < 0.7 * 64 * 64


def test_inputs_and_outputs_are_described(quantized, layers, tmp_path):
    session = quantized(layers, INPUTS, target_names=["_input_", "weight"])

    exported = session.export("safetensors", tmp_path / "m.safetensors")

    first = read_stored(exported.paths[0]).activations[0]
    assert (first["name"], first["quant_dtype"], first["is_dynamic"]) == (
        "0._input_",
        "int8",
        False,
    )
    scale = load_file(exported.paths[0])[first["scale"]]
    assert scale == session.qparams()["0"]["_input_"].scale.numpy()


def test_a_tied_weight_has_all_of_its_names(quantized, tmp_path):
    model = nn.Sequential(nn.Embedding(50, 32), nn.Linear(32, 50, bias=False))
    model[1].weight = model[0].weight
    session = quantized(
        model, torch.zeros(1, 1, dtype=torch.long), op_types=["Embedding"], target_names=["weight"]
    )

    exported = session.export("safetensors", tmp_path / "m.safetensors")

    found = read_stored(exported.paths[0])
    assert sorted(found) == ["0.weight", "1.weight"]
    assert exported.bytes < 50 * 32 + 1000


def test_shards_are_read_through_their_index(quantized, layers, tmp_path):
    session = quantized(layers, INPUTS, target_names=["weight"])

    exported = session.export(
        "safetensors", tmp_path / "m.safetensors", options={"shard_bytes": 2048}
    )

    assert len(exported.paths) > 2
    found = read_stored(tmp_path / "m.safetensors")
    assert torch.equal(torch.from_numpy(found["0.weight"]), layers[0].weight)


def test_a_number_without_dimensions_is_read_back_as_one(quantized, tmp_path):
    model = nn.Sequential(nn.Linear(32, 16), nn.BatchNorm1d(16))
    session = quantized(model, INPUTS, target_names=["weight"])

    exported = session.export("safetensors", tmp_path / "m.safetensors")

    assert exported.checks["other_tensors_equal"] == 6
    assert read_stored(exported.paths[0])["1.num_batches_tracked"].shape == ()


SHARDS = {"shard_bytes": 2048}


@pytest.mark.parametrize(
    ("before", "after"),
    [(SHARDS, SHARDS), (SHARDS, {}), ({}, SHARDS)],
    ids=["shards", "one_file", "shards_for_one_file"],
)
def test_the_newest_export_in_one_place_is_what_is_read(quantized, layers, tmp_path, before, after):
    path = tmp_path / "m.safetensors"
    quantized(copy.deepcopy(layers), INPUTS, target_names=["weight"]).export(
        "safetensors", path, options=before
    )
    other = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))

    session = quantized(other, INPUTS, target_names=["weight"])
    session.export("safetensors", path, options=after)

    found = read_stored(path)
    for name, weight in session.integer_weights()["0"].items():
        assert torch.equal(torch.from_numpy(found.integers(f"0.{name}")), weight.values)


def test_an_export_that_is_killed_between_shards_leaves_the_old_one(
    quantized, layers, tmp_path, monkeypatch
):
    path = tmp_path / "m.safetensors"
    old = quantized(copy.deepcopy(layers), INPUTS, target_names=["weight"])
    old.export("safetensors", path, options=SHARDS)
    other = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))
    session = quantized(other, INPUTS, target_names=["weight"])

    def move(made, place, move=into_place._move):
        if place.suffix == ".json":
            raise KeyboardInterrupt
        move(made, place)

    monkeypatch.setattr(into_place, "_move", move)
    with pytest.raises(KeyboardInterrupt):
        session.export("safetensors", path, options=SHARDS)

    found = read_stored(path)
    for module in ("0", "2"):
        integers = old.integer_weights()[module]["weight"].values
        assert torch.equal(torch.from_numpy(found.integers(f"{module}.weight")), integers)


def test_a_file_of_another_writer_says_so(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "m.safetensors")

    with pytest.raises(ValueError, match="its metadata has no 'tersely'"):
        read_stored(tmp_path / "m.safetensors")
