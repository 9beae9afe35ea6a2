"""Cutting a model in place, and putting it back bit for bit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tersely.engine.cutting import Cut
from tersely.shrinking.flow import Absorbed
from tersely.shrinking.predict import Literal
from tersely.shrinking.program import module_of
from tersely.shrinking.solve import Solution


class Undoing:
    """Remembers tensors and attributes, to put them back (mutable: it is a record).

    The tensors that were there are kept, not copies of them.
    """

    def __init__(self) -> None:
        self._tensors: list[tuple[Tensor, Tensor, Tensor | None]] = []
        self._attributes: list[tuple[Any, str, Any]] = []

    def set_data(self, tensor: Tensor, data: Tensor, grad: Tensor | None = None) -> None:
        """Give a parameter or buffer other data, and a parameter another gradient."""
        self._tensors.append((tensor, tensor.data, tensor.grad))
        _replace(tensor, data, grad)

    def set_attribute(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute."""
        self._attributes.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def undo(self) -> None:
        """Put everything back, last change first."""
        for tensor, data, grad in reversed(self._tensors):
            _replace(tensor, data, grad)
        for owner, name, value in reversed(self._attributes):
            setattr(owner, name, value)
        self._tensors.clear()
        self._attributes.clear()


def _replace(tensor: Tensor, data: Tensor, grad: Tensor | None) -> None:
    tensor.grad = None
    # While a loss of before is alive, autograd remembers the old shape of a parameter; it forgets
    # that only when data of another dtype comes.
    other = torch.float32 if data.dtype == torch.float64 else torch.float64
    tensor.data = torch.empty(0, dtype=other, device=data.device)
    tensor.data = data
    tensor.grad = grad


def absorb(
    tensors: Mapping[str, Tensor],
    absorbed: Iterable[Absorbed],
    solution: Solution,
    undoing: Undoing,
) -> dict[str, tuple[int, Tensor]]:
    """Add to biases what the positions that go would have added.

    Args:
        tensors: parameters by name, not cut yet.
        absorbed: what biases take over.
        solution: what goes.
        undoing: remembers the biases.

    Returns:
        bias -> how many constants it took over, and its exact value, float64, not cut yet.
    """
    found: dict[str, tuple[int, Tensor]] = {}
    for one in absorbed:
        gone = solution.of(one.labels)
        shares = torch.where(one.shares.isnan(), 0.0, one.shares)[:, gone]
        count = int((one.values[gone].nan_to_num(0.0) != 0).sum())
        if not count:
            continue
        bias = tensors[one.bias]
        total = bias.data.to(torch.float64) + shares.sum(1).to(bias.device)
        undoing.set_data(bias, total.to(bias.dtype), bias.grad)
        found[one.bias] = count, total
    return found


def cut_tensors(tensors: Mapping[str, Tensor], cuts: Mapping[str, Cut], undoing: Undoing) -> None:
    """Make parameters and buffers smaller; the objects stay the same.

    Args:
        tensors: parameters and buffers by name.
        cuts: what stays of each that loses something.
        undoing: remembers them.
    """
    for name, cut in cuts.items():
        tensor = tensors[name]
        grad = None if tensor.grad is None else cut(tensor.grad)
        undoing.set_data(tensor, cut(tensor.data), grad)


def follow_sizes(model: nn.Module, cuts: Mapping[str, Cut], undoing: Undoing) -> None:
    """Let attributes that state sizes say the new ones, for the layers of torch.nn.

    Args:
        model: the model, with its tensors cut.
        cuts: what was cut.
        undoing: remembers the attributes.
    """
    owners = {name.rpartition(".")[0] for name in cuts}
    for path, module in model.named_modules(remove_duplicate=False):
        if path in owners:
            for name, value in _sizes(module).items():
                if getattr(module, name, value) != value:
                    undoing.set_attribute(module, name, value)


def _sizes(module: nn.Module) -> dict[str, Any]:
    weight = module._parameters.get("weight")
    if isinstance(module, nn.Linear) and weight is not None:
        return {"out_features": weight.shape[0], "in_features": weight.shape[1]}
    if isinstance(module, nn.modules.conv._ConvNd) and weight is not None:
        own, other = weight.shape[0], weight.shape[1] * module.groups
        if module.transposed:
            return {"in_channels": own, "out_channels": other}
        return {"out_channels": own, "in_channels": other}
    if isinstance(module, nn.modules.batchnorm._NormBase):
        first = [*module._parameters.values(), *module._buffers.values()]
        return {"num_features": next(t.shape[0] for t in first if t is not None and t.ndim)}
    if isinstance(module, nn.GroupNorm) and weight is not None:
        return {"num_channels": weight.shape[0]}
    if isinstance(module, nn.Embedding):
        return {"embedding_dim": module.weight.shape[1]}
    if isinstance(module, nn.PReLU):
        return {"num_parameters": module.weight.numel()}
    if isinstance(module, nn.RNNBase):
        return {
            "input_size": module.weight_ih_l0.shape[1],
            "hidden_size": module.weight_hh_l0.shape[1],
        }
    return {}


def follow_literals(model: nn.Module, literals: Sequence[Literal], undoing: Undoing) -> None:
    """Let attributes say the sizes that forward reads from them as numbers.

    An integer of the module that runs the operator, with the value of a literal that has to
    change, takes the new value; the proof tells whether that was right.

    Args:
        model: the model.
        literals: numbers of the program that have to change.
        undoing: remembers the attributes.
    """
    wanted: dict[tuple[str, int], set[int]] = {}
    for literal in literals:
        wanted.setdefault((module_of(literal.node), literal.old), set()).add(literal.new)
    for (path, old), new in wanted.items():
        module = model.get_submodule(path)
        if len(new) > 1 or isinstance(module, nn.RNNBase):
            continue
        own = isinstance(module, nn.modules.conv._ConvNd)
        for name, value in list(vars(module).items()):
            if type(value) is not int or value != old:
                continue
            if (own and name != "groups") or (
                isinstance(module, nn.GroupNorm) and name != "num_groups"
            ):
                continue
            undoing.set_attribute(module, name, next(iter(new)))
