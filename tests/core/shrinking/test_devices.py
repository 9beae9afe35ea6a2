"""The walk works on the CPU, wherever a model's parameters are."""

import torch
from torch import nn
from torch.nn import functional

from tersely.shrinking.graph.program import read_program
from tersely.shrinking.operators.walk import walk

ALLOWED = {"cpu", "detach", "__get__", "is_floating_point", "size", "dim", "__getitem__"}


class Elsewhere(torch.Tensor):
    """A tensor of another device: it can be cut into rows and fetched, and meets no other."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function.__name__ not in ALLOWED:
            raise RuntimeError(f"{function.__name__} meets a tensor of another device")
        result = super().__torch_function__(function, types, args, kwargs or {})
        return result.as_subclass(torch.Tensor) if function.__name__ == "cpu" else result


class OnDevice:
    """Parameters of another device, without masks."""

    is_rounded = False

    def __init__(self, model):
        self.tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}

    def read(self, name, rows=None):
        tensor = self.tensors[name].detach().as_subclass(Elsewhere)
        return tensor if rows is None else tensor[rows]

    dense = read

    def kept(self, name):
        return None


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.conv, self.norm = (
            nn.Embedding(5, 6),
            nn.Conv1d(6, 6, 3, padding=1, groups=2),
            nn.BatchNorm1d(6),
        )
        self.depth = nn.ConvTranspose1d(6, 6, 3, groups=6)
        self.gate, self.recurrent = nn.Linear(6, 12), nn.GRU(6, 4, batch_first=True)
        self.scale, self.out = nn.Parameter(torch.ones(4)), nn.Linear(4, 2)
        self.register_buffer("order", torch.tensor([2, 0, 1, 3]))

    def forward(self, words):
        x = self.embed(words).transpose(1, 2)
        x = self.depth(self.norm(self.conv(x)).relu() * torch.sigmoid(self.norm.bias[:, None]))
        x = self.recurrent(functional.glu(self.gate(x.transpose(1, 2)), -1))[0]
        return self.out(x[..., self.order] * self.scale.exp())


def test_values_are_fetched_before_they_meet_others():
    model = Network().eval()
    program = read_program(model, (torch.tensor([[1, 4, 2, 0]]),), {})

    trace = walk(program, OnDevice(model))

    assert trace.roots.keys() >= {"embed.weight", "conv.weight", "norm.bias", "order", "scale"}
