"""Sessions with every algorithm of the family: saved, loaded, detached, finalized, compiled."""

import copy
import warnings

import pytest
import torch
from torch import nn

import tersely

TRAINED = ["qat", "lsq", "lsq_plus", "dorefa", "bnn"]
SOLVED = ["gptq", "awq", "smoothquant", "adaround"]
ALL = ["ptq", "rtn", *TRAINED, *SOLVED]
X = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """Two linear layers with a norm that can be folded into the first."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.act = nn.ReLU()
        self.last = nn.Linear(8, 4)

    def forward(self, x):
        return self.last(self.act(self.norm(self.first(x))))


def build():
    torch.manual_seed(0)
    model = Net()
    with torch.no_grad():
        model.norm.running_mean.uniform_(-0.5, 0.5)
        model.norm.running_var.uniform_(0.5, 2.0)
    return model


def recipe(algorithm, targets=("_input_", "weight"), **entry):
    options = {"iterations": 20} if algorithm == "adaround" else {}
    config = {"op_types": ["Linear"], "target_names": list(targets), **entry}
    stage = {"algorithm": algorithm, "options": options, "config_list": [config]}
    return {"quantization": stage}


def quantized(algorithm, model=None, document=None):
    session = tersely.attach(model or build(), document or recipe(algorithm))
    session.calibrate([X[:8], X[8:]])
    session.compress()
    return session


def train(model, session, optimizer, *, steps, start=0):
    model.train()
    for step in range(start, start + steps):
        optimizer.zero_grad()
        loss = (model(X[step : step + 8]) - 1).square().mean()
        session.total_loss(loss).backward()
        optimizer.step()
        session.step()


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def assert_equal_states(found, expected):
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("algorithm", ALL)
def test_detaching_gives_the_dense_model_back_bit_for_bit(algorithm):
    model = build()
    dense = copy.deepcopy(model.state_dict())
    session = quantized(algorithm, model)
    session.compress()
    session.detach()

    assert list(model.state_dict()) == list(dense)
    assert_equal_states(model.state_dict(), dense)


@pytest.mark.parametrize("algorithm", ALL)
def test_integers_read_back_are_what_forward_computes_with(algorithm):
    session = quantized(algorithm)

    for module, targets in session.integer_weights().items():
        for target, found in targets.items():
            weight = getattr(session.model.get_submodule(module), target)
            assert torch.equal(found.dequantize(), weight)


@pytest.mark.parametrize("algorithm", ALL)
def test_finalizing_changes_nothing_of_what_is_computed(algorithm):
    session = quantized(algorithm)
    model = session.model.eval()
    expected = model(X)
    names = [name for name, _ in model.named_parameters()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        session.finalize()

    # Factors of input channels are divided out again, which rounds.
    tolerance = 1e-5 if algorithm in ("awq", "smoothquant") else 0
    torch.testing.assert_close(model(X), expected, rtol=tolerance, atol=tolerance)
    assert [name for name, _ in model.named_parameters()] == names


@pytest.mark.parametrize("algorithm", ALL)
def test_a_saved_session_goes_on_bit_for_bit(algorithm, tmp_path):
    model = build()
    dense = copy.deepcopy(model.state_dict())
    session = quantized(algorithm, model)
    optimizer = sgd(model)
    train(model, session, optimizer, steps=2)
    session.save(tmp_path / "session")
    checkpoint = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())

    fresh = build()
    again = tersely.load_session(fresh, tmp_path / "session")
    fresh.load_state_dict(checkpoint[0])
    other = sgd(fresh)
    other.load_state_dict(checkpoint[1])
    train(model, session, optimizer, steps=3, start=2)
    train(fresh, again, other, steps=3, start=2)

    assert_equal_states(fresh.state_dict(), model.state_dict())
    if algorithm in SOLVED:
        again.detach()
        assert torch.equal(fresh.first.weight, dense["first.weight"])


@pytest.mark.parametrize("algorithm", SOLVED)
def test_what_was_solved_comes_back_from_a_saved_session_alone(algorithm, tmp_path):
    session = quantized(algorithm)
    session.save(tmp_path / "session")
    fresh = build()
    dense = copy.deepcopy(fresh.state_dict())
    again = tersely.load_session(fresh, tmp_path / "session")

    assert torch.equal(fresh.eval()(X), session.model.eval()(X))
    again.detach()
    assert_equal_states(fresh.state_dict(), dense)


@pytest.mark.parametrize("algorithm", ALL)
def test_a_checkpoint_goes_into_a_freshly_attached_model(algorithm):
    session = quantized(algorithm)
    fresh = build()
    again = tersely.attach(fresh, recipe(algorithm))

    missing, unexpected = fresh.load_state_dict(session.model.state_dict())

    assert (missing, unexpected) == ([], [])
    assert torch.equal(fresh.eval()(X), session.model.eval()(X))
    for module, targets in session.qparams().items():
        for target, qparams in targets.items():
            assert torch.equal(again.qparams()[module][target].scale, qparams.scale)


@pytest.mark.parametrize("algorithm", ALL)
def test_copies_compute_the_same(algorithm):
    session = quantized(algorithm)

    assert torch.equal(copy.deepcopy(session.model).eval()(X), session.model.eval()(X))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("algorithm", ALL)
def test_models_in_half_precision_have_float32_scales(algorithm, dtype):
    model = build().to(dtype)
    session = tersely.attach(model, recipe(algorithm))
    session.calibrate([X.to(dtype)])
    session.compress()

    assert model.eval()(X.to(dtype)).dtype is dtype
    for module, targets in session.qparams().items():
        for target, qparams in targets.items():
            assert qparams.scale.dtype is torch.float32, f"{module}.{target}"
    for module, targets in session.integer_weights().items():
        for target, found in targets.items():
            weight = getattr(model.get_submodule(module), target)
            assert torch.equal(found.dequantize(), weight)


def compiles(model, *, training):
    torch.compiler.reset()
    model.train(training)
    state = copy.deepcopy(model.state_dict())
    expected = model(X)
    after = copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    found = compiled(X)
    torch.testing.assert_close(found, expected)
    for name, tensor in after.items():
        torch.testing.assert_close(model.state_dict()[name], tensor)
    if training:
        found.sum().backward()


# torch's tracer makes an instance of torch.autograd.Function, of which torch warns.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("is_folded", [False, True])
@pytest.mark.parametrize("algorithm", ["ptq", "qat", "lsq"])
def test_it_compiles_as_one_graph(algorithm, is_folded, training):
    document = recipe(algorithm)
    if is_folded:
        entry = {"op_names": ["first"], "target_names": ["_input_", "weight", "_output_"]}
        entry["fuse_names"] = [["first", "norm", "act"]]
        document["quantization"]["config_list"] = [entry]
    session = quantized(algorithm, document=document)

    compiles(session.model, training=training)


@pytest.mark.parametrize("algorithm", ["ptq", "gptq", "smoothquant", "rtn"])
def test_it_exports(algorithm):
    model = quantized(algorithm).model.eval()

    exported = torch.export.export(model, (X,)).module()

    torch.testing.assert_close(exported(X), model(X))


# As above.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_new_scales_need_no_new_graph():
    session = quantized("ptq")
    model = session.model.eval()
    torch.compiler.reset()
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph

    compiled = torch.compile(model, fullgraph=True, backend=count)
    compiled(X)
    session.calibrate([2 * X])
    session.compress()

    assert torch.equal(compiled(X), model(X))
    assert len(graphs) == 1


@pytest.mark.parametrize("targets", [("weight",), ("_input_", "weight")])
@pytest.mark.parametrize("algorithm", ["awq", "smoothquant"])
def test_every_holder_of_a_tied_weight_reads_the_same_values(algorithm, targets):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(4, 6), nn.Linear(6, 4, bias=False))
    model[1].weight = model[0].weight
    tokens = torch.tensor([[0, 1, 2, 3]])
    document = recipe(algorithm, targets)
    session = tersely.attach(model, document)
    session.calibrate([tokens])
    session.compress()
    expected = model(tokens)

    assert torch.equal(model[0].weight, model[1].weight)
    raw = model[1]._parameters["weight"]
    assert torch.allclose(model[0].weight, raw, atol=0.05, rtol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        session.finalize()
    assert torch.equal(model(tokens), expected)
    assert model[0].weight is model[1].weight


def test_a_folded_norm_sees_what_the_dense_one_sees_while_qat_trains():
    dense = build()
    entry = {"op_names": ["first"], "target_names": ["weight"], "fuse_names": [["first", "norm"]]}
    document = recipe("qat")
    document["quantization"]["config_list"] = [entry]
    session = tersely.attach(build(), document)
    for model in (dense, session.model):
        model.train()
        model(X)

    assert torch.equal(session.model.norm.running_mean, dense.norm.running_mean)
    assert torch.equal(session.model.norm.running_var, dense.norm.running_var)


def test_a_bias_makes_up_for_what_rounding_shifts_and_comes_back(tmp_path):
    def make():
        model = nn.Sequential(nn.Linear(2, 1))
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor([[1.27, 0.014]]))
            model[0].bias.fill_(0.5)
        return model

    model = make()
    document = {
        "quantization": {
            "algorithm": "ptq",
            "options": {"bias_correction": True},
            "config_list": [{"op_names": ["0"], "target_names": ["weight"]}],
        }
    }
    session = tersely.attach(model, document)
    session.calibrate([torch.tensor([[1.0, 5.0], [3.0, 15.0]])])
    session.compress()

    # The second weight lost 0.004, and its input is 10 on average.
    assert model[0].bias.item() == pytest.approx(0.54)
    session.save(tmp_path / "session")
    fresh = make()
    again = tersely.load_session(fresh, tmp_path / "session")
    assert torch.equal(fresh[0].bias, model[0].bias)
    for one in (session, again):
        assert one.detach()[0].bias.item() == 0.5


def test_inputs_are_ranged_behind_the_weights_that_were_solved():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 4))
    batch = torch.randn(32, 8)
    entry = {
        "op_types": ["Linear"],
        "target_names": ["_input_", "weight"],
        "quant_dtype": "int4",
    }

    session = tersely.quantize(model, [entry], algorithm="gptq", data=[batch])

    # Solved weights are the raw values now; int4 has 7 steps on either side of zero.
    first = model[0]._parameters
    largest = torch.nn.functional.linear(batch, first["weight"], first["bias"]).abs().max()
    torch.testing.assert_close(session.qparams()["1"]["_input_"].scale, (largest / 7).detach())
