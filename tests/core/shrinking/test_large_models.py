"""Models too large to copy: run operator by operator, and put back from what was taken out."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.fx import config
from torch.nn import functional

from tersely.engine.state.cutting import Cut
from tersely.shrinking.cutting.apply import Undoing
from tersely.shrinking.cutting.masked_weights import MaskedWeights, Used
from tersely.shrinking.graph import flow
from tersely.shrinking.graph.labels import Labels
from tersely.shrinking.graph.program import read_program
from tersely.shrinking.operators.reading import uses_of
from tersely.shrinking.proving import outputs, streaming
from tersely.shrinking.proving.inputs import compared_inputs
from tersely.shrinking.proving.streaming import stream
from tersely.shrinking.shrink import shrink_module

WORDS = torch.tensor([[1, 4, 2], [0, 3, 3]])


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(5, 6)
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6, bias=False)
        self.register_buffer("scale", torch.tensor(0.5))

    def forward(self, words, scale=2.0):
        x = self.embed(words).to(torch.float32) * self.scale.to(self.embed.weight.dtype)
        x = x + self.down(functional.silu(self.up(x.to(self.up.weight.dtype)))) * scale
        return x, functional.linear(x.to(self.embed.weight.dtype), self.embed.weight)


@pytest.fixture
def large(monkeypatch):
    monkeypatch.setattr(outputs, "_LARGEST_COPY", 0)


@pytest.fixture
def few_rows(monkeypatch):
    monkeypatch.setattr(streaming, "_AT_ONCE", 10)


@pytest.mark.parametrize("at_once", [1, 6, 100])
@pytest.mark.parametrize("rows", [0, 1])
def test_what_a_matrix_uses_is_seen_in_any_runs_of_rows(rows, at_once, monkeypatch):
    monkeypatch.setattr(flow, "_AT_ONCE", at_once)
    outputs_by_inputs = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    matrix = outputs_by_inputs if rows == 0 else outputs_by_inputs.T
    trace = flow.Trace(MaskedWeights({"weight": matrix}, {}, Used()))
    unknown = torch.tensor([True, False, True])

    read, depending = uses_of(trace.root("weight", (3, 3)), unknown, rows)

    assert read.tolist() == [True, True, False]
    assert depending.tolist() == [False, False, True]


def units(model):
    kept = torch.ones(8, dtype=torch.bool)
    kept[::2] = False
    return {"up.weight": kept[:, None].expand(8, 6), "up.bias": kept}


def test_a_program_runs_in_double_precision_as_the_model_does(few_rows):
    model = Words()
    program = read_program(model, (WORDS,), {"scale": 3.0})
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}

    found = stream(program, tensors.__getitem__, ((WORDS,), {"scale": 3.0}), torch.float64)

    assert all(one.dtype == torch.float64 for one in found)
    torch.testing.assert_close([one.float() for one in found], list(model(WORDS, scale=3.0)))


def test_random_inputs_are_compared_where_an_example_holds_numbers():
    numbers = torch.tensor([1.0, 2.0])

    both = compared_inputs(((WORDS, numbers), {"scale": 3.0}))
    tokens = compared_inputs(((WORDS,), {"scale": 3.0}))

    (words, others), kwargs = both[1]
    assert len(both) == 2
    assert torch.equal(words, WORDS)
    assert others.shape == (2,)
    assert not torch.equal(others, numbers)
    assert kwargs == {"scale": 3.0}
    assert tokens == (((WORDS,), {"scale": 3.0}),)


@pytest.mark.parametrize("has_lines", [True, False])
def test_operators_know_their_lines_of_code_where_that_is_asked(has_lines):
    before = config.do_not_emit_stack_traces

    program = read_program(Words(), (WORDS,), {}, has_lines=has_lines)

    operators = [node for node in program.nodes if node.op == "call_function"]
    assert all(bool(node.meta.get("stack_trace")) is has_lines for node in operators)
    assert config.do_not_emit_stack_traces is before


def test_a_large_model_is_compared_in_double_precision(large):
    found = shrink_module(Words(), (WORDS,), {}, units(Words()))

    assert found.in_float64
    assert 0 <= found.error < 1e-12
    assert found.cuts["down.weight"].after == (6, 4)


def test_a_large_model_of_halves_is_compared_in_single_precision(large):
    model = Words().bfloat16()

    found = shrink_module(model, (WORDS,), {}, units(model))

    assert not found.in_float64
    assert found.error < 1e-5
    assert model.up.weight.dtype == torch.bfloat16


def test_a_large_model_whose_outputs_differ_is_as_it_was(large, monkeypatch):
    model = Words()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    monkeypatch.setattr(outputs.Outputs, "tolerance", -1.0)

    with pytest.raises(Exception, match="outputs differ"):
        shrink_module(model, (WORDS,), {}, units(model))

    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_what_was_cut_along_two_dimensions_is_put_back_in_its_layout(layout):
    values = torch.randn(4, 6, 3, 3).to(memory_format=layout)
    parameter = nn.Parameter(values.clone(memory_format=torch.preserve_format))
    parameter.grad = torch.ones_like(parameter)
    stride = parameter.stride()
    kept = (torch.tensor([0, 2]), torch.tensor([1, 2, 5]), None, None)
    undoing = Undoing()

    undoing.set_cut(parameter, Cut("0.weight", (4, 6, 3, 3), (2, 3, 3, 3), kept))
    small = parameter.detach().clone()
    undoing.undo()

    torch.testing.assert_close(small, values[[0, 2]][:, [1, 2, 5]])
    torch.testing.assert_close(parameter.detach(), values, rtol=0, atol=0)
    assert parameter.stride() == stride
    assert parameter.grad.shape == (4, 6, 3, 3)


def test_reasons_are_those_that_were_found_first():
    labels = Labels()
    first, second = labels.new((3,)), labels.new((2,))
    labels.place = "add of 0"
    labels.pin(first[1:], "one")
    labels.pin(torch.cat([first, second[:1]]), "another")

    numbers, reasons = labels.numbered()

    assert reasons == ("one (add of 0)", "another (add of 0)")
    assert numbers.tolist() == [0, 2, 1, 1, 2, 0]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak")
@pytest.mark.slow
def test_a_large_model_shrinks_in_little_more_than_its_own_memory():
    worker = Path(__file__).with_name("peak_of_memory.py")
    run = subprocess.run(
        [sys.executable, str(worker)], capture_output=True, text=True, check=True, timeout=600
    )

    layers = float(run.stdout)

    assert layers < 3
