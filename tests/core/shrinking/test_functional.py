"""Exported graphs lose their writes in place, and compute what they did."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tersely.shrinking.graph.functional import without_writes
from tersely.shrinking.graph.program import operator_name

# torch's own decompositions use what torch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

X = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))


class Runs(nn.Module):
    def __init__(self, run):
        super().__init__()
        self.conv, self.norm, self.run = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), run

    def forward(self, x):
        return self.run(self, x)


def residual(self, x):
    inner = functional.relu(self.norm(self.conv(x)), inplace=True)
    inner = self.conv(inner)
    inner += x
    return inner.relu_() * 2


def a_view_that_is_read_later(self, x):
    x = self.conv(x)
    seen = x.flatten(1)
    x.relu_()
    return seen * 2


def a_slice_that_is_read_later(self, x):
    x = self.conv(x)
    seen = x[:, 1:]
    x.relu_()
    return seen * 2


def a_product_that_returns_a_view(self, x):
    x = self.conv(x)
    seen = torch.cartesian_prod(x.flatten()[:3])
    seen.add_(1)
    return x * 2 + seen.sum()


def a_part_that_is_written(self, x):
    x = self.conv(x)
    first, _ = x.chunk(2, 1)
    first.relu_()
    return x * 2


def a_sum_of_less_precision(self, x):
    inner = self.conv(x).half().neg()
    inner += x
    return inner * 2


def a_constant(self, x):
    return self.conv(x) * torch.tensor([1.0, -1.0, 2.0, 0.5]).view(4, 1, 1)


def a_view_that_is_written(self, x):
    x = self.conv(x)
    x[:, 1] = 0
    return x


def an_argument_that_is_written(self, x):
    return self.conv(x.mul_(2))


def a_parameter_through_a_view(self, x):
    return self.conv(x) + self.conv.weight.flatten()[:1].clone().add_(1)


@pytest.mark.parametrize(
    "run",
    [
        residual,
        a_view_that_is_read_later,
        a_slice_that_is_read_later,
        a_product_that_returns_a_view,
        a_part_that_is_written,
        a_sum_of_less_precision,
        a_constant,
        a_view_that_is_written,
        an_argument_that_is_written,
        a_parameter_through_a_view,
    ],
)
def test_no_operator_writes_and_the_result_is_the_same(run):
    model = Runs(run).eval()
    with torch.no_grad():
        expected = model(X.clone())
        exported = without_writes(torch.export.export(model, (X.clone(),), strict=False))
        assert not any(operator_name(node).endswith("_") for node in exported.graph.nodes)
        torch.testing.assert_close(
            torch.fx.Interpreter(exported.graph_module).run(*_inputs(exported, X.clone()))[-1],
            expected,
        )


def _inputs(exported, x):
    signature = exported.graph_signature
    named = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    held = {**exported.state_dict, **exported.constants}
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            yield held[named[node.name]] if node.name in named else x


def parts_that_are_combined(self, x):
    first, second = (self.conv(x).flatten(2) @ x.flatten(2).transpose(1, 2)).chunk(2, -1)
    scores = torch.stack([first[:, :1].expand_as(second).amax(-1), second.sum(-1)])
    return scores.masked_fill(scores > 0, 0.5).log_softmax(-1)


@pytest.mark.parametrize("run", [residual, a_constant, parts_that_are_combined])
def test_a_network_without_writes_that_are_seen_is_not_traced_a_second_time(monkeypatch, run):
    exported = torch.export.export(Runs(run).eval(), (X,), strict=False)
    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", None)

    exported = without_writes(exported)

    assert not any(operator_name(node).endswith("_") for node in exported.graph.nodes)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: torch.einsum("bchw->bcwh", x),
        lambda x: torch.unsafe_split(x, 2, 1)[0],
        lambda x: torch.unsafe_chunk(x, 2, 1)[0],
    ],
    ids=["einsum", "unsafe_split", "unsafe_chunk"],
)
def test_a_write_into_what_has_a_view_that_is_not_declared_is_left_to_torch(monkeypatch, view):
    def run(self, x):
        x = self.conv(x)
        seen = view(x)
        x.relu_()
        return seen * 2

    exported = torch.export.export(Runs(run).eval(), (X,), strict=False)
    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", lambda *_: "torch's")

    assert without_writes(exported) == "torch's"
