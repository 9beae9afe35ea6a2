"""Scales of blocks of any shape (rule G6.5)."""

import copy

import pytest
import torch
from torch import nn

import tersely

# Wrapped diagonals with the largest magnitudes 7, 14 and 21: scales of 1, 2 and 3 for int4.
WEIGHT = torch.tensor([[7.0, -13, 10], [21, 1.2, 14], [3, 8.9, -2.6], [6.5, 4, -21]])
SCALES = [[1, 2, 3], [3, 1, 2], [2, 3, 1], [1, 2, 3]]
INTEGERS = [[7, -6, 3], [7, 1, 7], [2, 3, -3], [6, 2, -7]]


class Diagonals:
    def blocks(self, shape, target):
        rows, columns = torch.arange(shape[0])[:, None], torch.arange(shape[1])
        index = (columns - rows) % shape[1]
        return tersely.Blocks(index=index if len(shape) == 2 else index[0])


class Holding:
    def refusals(self, source):
        return []

    def write(self, source, path):
        [weight] = source.integers.values()
        path.write_text(str(weight.qparams.block_size.numbers.tolist()))
        return [path]

    def check(self, source, path):
        return {}


@pytest.fixture(autouse=True)
def diagonals(_toy_quantizers, provide):
    granularity = tersely.GranularityInfo(
        name="toy_diagonals", implementation="tersely_numbered:Diagonals"
    )
    exporter = tersely.ExporterInfo(
        name="toy_numbers", implementation="tersely_numbered:Holding", holds=("numbered_blocks",)
    )
    with provide("tersely_numbered", granularity, exporter, Diagonals=Diagonals, Holding=Holding):
        yield


@pytest.fixture
def model():
    model = nn.Sequential(nn.Linear(3, 4, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(WEIGHT)
    return model


def recipe(algorithm="toy_range", target="weight", **keys):
    entry = {
        "op_types": ["Linear"],
        "target_names": [target],
        "quant_dtype": "int4",
        "granularity": "toy_diagonals",
        **keys,
    }
    return {"quantization": {"algorithm": algorithm, "config_list": [entry]}}


def compressed(model, algorithm="toy_range", **keys):
    session = tersely.attach(model, recipe(algorithm, **keys))
    session.calibrate([torch.randn(5, 3)])
    session.compress()
    return session


@pytest.mark.parametrize("algorithm", ["toy_range", "toy_plain"])
def test_each_block_has_a_scale(model, algorithm):
    session = compressed(model, algorithm)
    qparams = session.qparams()["0"]["weight"]
    assert torch.allclose(qparams.scale, torch.tensor([1.0, 2.0, 3.0]))
    assert qparams.block_size == tersely.Blocks(index=Diagonals().blocks((4, 3), None).index).size


def test_integers_and_simulated_values_belong_to_the_scale_of_their_block(model):
    session = compressed(model)
    expected = torch.tensor(INTEGERS, dtype=torch.float32) * torch.tensor(SCALES)
    assert session.integer_weights()["0"]["weight"].values.tolist() == INTEGERS
    assert torch.allclose(model[0].weight, expected)
    assert torch.allclose(session.finalize()[0].weight, expected)


def test_a_square_weight_is_not_taken_for_columns():
    model = nn.Sequential(nn.Linear(3, 3, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(WEIGHT[:3])
    compressed(model)
    found = torch.tensor(INTEGERS[:3], dtype=torch.float32) * torch.tensor(SCALES[:3])
    assert torch.allclose(model[0].weight, found)


def test_affine_blocks_have_zero_points_of_their_own(model):
    with torch.no_grad():
        model[0].weight.abs_()
    session = compressed(model, quant_scheme="affine", quant_dtype="uint4")
    qparams = session.qparams()["0"]["weight"]
    assert torch.allclose(qparams.scale, torch.tensor([7.0, 14.0, 21.0]) / 15)
    assert qparams.zero_point.tolist() == [0, 0, 0]


def test_alike_weights_are_each_quantized_by_their_own_blocks():
    model = nn.Sequential(*(nn.Linear(3, 4, bias=False) for _ in range(20)))
    with torch.no_grad():
        for number, layer in enumerate(model):
            layer.weight.copy_(WEIGHT * (number + 1))
    session = tersely.attach(nn.ModuleList(model), recipe("toy_plain"))
    session.compress()
    assert torch.allclose(session.qparams()["19"]["weight"].scale, torch.tensor([20.0, 40.0, 60.0]))


@pytest.mark.parametrize("algorithm", ["toy_follow", "toy_learn"])
def test_training_moves_the_scale_of_each_block(model, algorithm):
    session = compressed(model, algorithm)
    before = session.qparams()["0"]["weight"].scale.clone()
    optimizer = torch.optim.SGD([*model.parameters(), *session.parameters()], 0.01)
    model(torch.ones(2, 3)).square().mean().backward()
    optimizer.step()
    session.step()
    model(torch.ones(2, 3))
    after = session.qparams()["0"]["weight"].scale
    assert after.shape == (3,)
    assert bool((after != before).all())


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_copy_a_compiled_model_and_a_loaded_session_compute_the_same(model, tmp_path):
    session = compressed(model)
    data = torch.randn(2, 3)
    expected = model(data)
    assert torch.equal(copy.deepcopy(model)(data), expected)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.equal(compiled(data), expected)
    session.save(tmp_path / "saved")
    fresh = nn.Sequential(nn.Linear(3, 4, bias=False))
    fresh[0].weight.data.copy_(WEIGHT)
    tersely.load_session(fresh, tmp_path / "saved")
    assert torch.equal(fresh(data), expected)


def test_scales_may_be_set_by_hand(model):
    session = compressed(model)
    qparams = session.qparams()["0"]["weight"]
    session.set_qparams({"0": {"weight": qparams.evolve(scale=qparams.scale * 2)}})
    assert torch.allclose(session.qparams()["0"]["weight"].scale, torch.tensor([2.0, 4.0, 6.0]))


def test_scales_of_other_blocks_are_refused(model):
    session = compressed(model)
    qparams = session.qparams()["0"]["weight"].evolve(block_size=(-1, 1))
    with pytest.raises(tersely.SessionError, match=r"the plan has Numbering\(3 blocks in \[4, 3\]"):
        session.set_qparams({"0": {"weight": qparams}})


def test_inputs_are_refused_in_planning_or_when_their_shape_is_known(model):
    session = tersely.attach(model, recipe(target="_input_"))
    with pytest.raises(
        tersely.TerselyError, match="scales of inputs and outputs need rectangular blocks"
    ):
        session.calibrate([torch.randn(5, 3)])


def test_a_format_without_numbers_refuses_the_weight(model, tmp_path):
    session = compressed(model)
    with pytest.raises(tersely.ExportError, match="its scales belong to numbered blocks"):
        session.export("toy_names", tmp_path / "names.txt")


def test_a_format_with_numbers_is_given_them(model, tmp_path):
    session = compressed(model)
    session.export("toy_numbers", tmp_path / "numbers.txt")
    index = Diagonals().blocks((4, 3), None).index
    assert (tmp_path / "numbers.txt").read_text() == str(index.tolist())


def test_masked_and_quantized_blocks_go_together(model):
    both = recipe()
    both["pruning"] = {
        "algorithm": "toy",
        "config_list": [
            {
                "op_types": ["Linear"],
                "target_names": ["weight"],
                "sparse_ratio": 0.4,
                "granularity": "toy_diagonals",
            }
        ],
    }
    session = tersely.attach(model, both)
    session.compress()
    # The diagonal with the lowest sum of magnitudes is the first; its zeros have a scale as well.
    kept = session.masks()["0"]["weight"]
    assert torch.equal(kept, Diagonals().blocks((4, 3), None).index != 0)
    assert torch.equal(model[0].weight == 0, ~kept)
