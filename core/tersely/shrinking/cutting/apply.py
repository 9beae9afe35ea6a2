"""Cutting a model in place, and restoring it bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tersely.engine.state.cutting import Cut
from tersely.shrinking.graph.flow import Absorbed, Flow, Trace
from tersely.shrinking.graph.program import module_of, operator_name
from tersely.shrinking.graph.solution import Solution
from tersely.shrinking.proving.predict import shape_after


class Undoing:
    """Remembers tensors and attributes in order to restore them (mutable: it is a record).

    Only the removed part of a tensor is kept, so that the model and this record take as much memory
    as the model did.
    """

    def __init__(self) -> None:
        self._tensors: list[Callable[[], None]] = []
        self._attributes: list[tuple[Any, str, Any]] = []

    def set_data(self, tensor: Tensor, data: Tensor, grad: Tensor | None = None) -> None:
        """Give a parameter or buffer other data, and a parameter another gradient."""
        before, gradient = tensor.data, tensor.grad
        self._tensors.append(lambda: _replace(tensor, before, gradient))
        _replace(tensor, data, grad)

    def set_cut(self, tensor: Tensor, cut: Cut) -> None:
        """Make a parameter or buffer smaller, and its gradient."""
        gradient = tensor.grad
        small = None if gradient is None else cut(gradient)
        if cut.columns is not None:
            self.set_data(tensor, cut(tensor.data), small)
            return
        data, stride = tensor.data, tensor.data.stride()
        taken: list[tuple[int, Tensor, Tensor, Tensor]] = []
        for dim, positions in enumerate(cut.kept):
            if positions is not None:
                kept = positions.to(data.device)
                goes = torch.ones(data.shape[dim], dtype=torch.bool, device=data.device)
                goes[kept] = False
                gone = goes.nonzero().reshape(-1)
                taken.append((dim, kept, gone, data.index_select(dim, gone)))
                data = data.index_select(dim, kept)
        self._tensors.append(lambda: _replace(tensor, _whole(tensor, taken, stride), gradient))
        _replace(tensor, data, small)

    def set_shape(self, tensor: Tensor, cut: Cut) -> None:
        """Give a parameter or buffer the shape that a cut leaves, and no values.

        What it held is kept as it is, and memory that nothing writes to takes no room.
        """
        self.set_data(tensor, tensor.data.new_empty(cut.after))

    def set_attribute(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute."""
        self._attributes.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def after(self, earlier: Undoing) -> Undoing:
        """Return a function that undoes the changes recorded here, and then earlier ones."""
        both = Undoing()
        both._tensors = [*earlier._tensors, *self._tensors]
        both._attributes = [*earlier._attributes, *self._attributes]
        return both

    def attributes(self) -> list[tuple[Any, str, Any]]:
        """Return each number, or row of them, that was set, with its owner and its value now.

        A number of an object that the owner holds has the name of both, as ``config.heads``.
        """
        found: dict[tuple[int, str], tuple[Any, str, Any]] = {}
        for owner, name, before in self._attributes:
            now = getattr(owner, name)
            if isinstance(now, int | tuple | list):
                found[id(owner), name] = owner, name, now
            elif name != "__class__":
                for key in _differing(before, now):
                    found.setdefault((id(now), key), (owner, f"{name}.{key}", getattr(now, key)))
        return list(found.values())

    def undo(self) -> None:
        """Undo all changes, the last one first."""
        for put_back in reversed(self._tensors):
            put_back()
        for owner, name, value in reversed(self._attributes):
            setattr(owner, name, value)
        self._tensors.clear()
        self._attributes.clear()


def _differing(before: Any, now: Any) -> list[str]:
    """Return which whole numbers of an object differ from those of the one that it is a copy of."""
    numbers = vars(before)
    return [key for key, value in vars(now).items() if type(value) is int and numbers[key] != value]


def _replace(tensor: Tensor, data: Tensor, grad: Tensor | None) -> None:
    tensor.grad = None
    # While an earlier loss is alive, autograd remembers the old shape of a parameter, until it gets
    # data of another dtype.
    other = torch.float32 if data.dtype == torch.float64 else torch.float64
    tensor.data = torch.empty(0, dtype=other, device=data.device)
    tensor.data = data
    tensor.grad = grad


def _whole(
    tensor: Tensor, taken: Sequence[tuple[int, Tensor, Tensor, Tensor]], stride: tuple[int, ...]
) -> Tensor:
    """Return a tensor with its removed parts, dimension by dimension."""
    data = tensor.data
    for dim, kept, gone, values in reversed(taken):
        size = list(data.shape)
        size[dim] += gone.numel()
        whole = data.new_empty(size)
        whole.index_copy_(dim, kept, data).index_copy_(dim, gone, values)
        data = whole
    if data.stride() == stride:
        return data
    return torch.empty_strided(data.shape, stride, dtype=data.dtype, device=data.device).copy_(data)


def absorb(
    tensors: Mapping[str, Tensor],
    absorbed: Iterable[Absorbed],
    solution: Solution,
    undoing: Undoing,
) -> dict[str, Tensor]:
    """Add to biases what removed positions would have contributed.

    Args:
        tensors: parameters by name, not cut yet.
        absorbed: the constants that biases take over.
        solution: the labels that are removed.
        undoing: records the changes.

    Returns:
        bias -> its exact value, float64, not cut yet.
    """
    found: dict[str, Tensor] = {}
    for one in absorbed:
        gone = solution.of(one.labels)
        shares = torch.where(one.shares.isnan(), 0.0, one.shares)[:, gone]
        if not one.count(gone):
            continue
        bias = tensors[one.bias]
        total = bias.data.to(torch.float64) + shares.sum(1).to(bias.device)
        undoing.set_data(bias, total.to(bias.dtype), bias.grad)
        found[one.bias] = total
    return found


def cut_tensors(tensors: Mapping[str, Tensor], cuts: Mapping[str, Cut], undoing: Undoing) -> None:
    """Make parameters and buffers smaller; the objects stay the same.

    Args:
        tensors: parameters and buffers by name.
        cuts: the cuts of those that become smaller.
        undoing: records the changes.
    """
    for name, cut in cuts.items():
        undoing.set_cut(tensors[name], cut)


def shape_tensors(tensors: Mapping[str, Tensor], cuts: Mapping[str, Cut], undoing: Undoing) -> None:
    """Give parameters and buffers the shapes that cuts leave, to follow forward without values.

    Args:
        tensors: parameters and buffers by name.
        cuts: what stays of each that loses something.
        undoing: remembers them.
    """
    for name, cut in cuts.items():
        undoing.set_shape(tensors[name], cut)


def follow_sizes(model: nn.Module, cuts: Mapping[str, Cut], undoing: Undoing) -> None:
    """Update the size attributes of layers of torch.nn.

    Args:
        model: the model, with its tensors cut.
        cuts: the cuts.
        undoing: records the changes.
    """
    owners = {name.rpartition(".")[0] for name in cuts}
    for path, module in model.named_modules(remove_duplicate=False):
        if path in owners or isinstance(module, nn.MultiheadAttention):
            for name, value in _sizes(module).items():
                if getattr(module, name, value) != value:
                    undoing.set_attribute(module, name, value)


def follow_channels(model: nn.Module, trace: Trace, solution: Solution, undoing: Undoing) -> None:
    """Update the numbers of channels that norms without parameters store.

    Args:
        model: the model.
        trace: the result of the walk.
        solution: the labels that are removed.
        undoing: records the changes.
    """
    stated = {"instance_norm": "num_features", "group_norm": "num_channels"}
    for node, flow in trace.flows.items():
        name = stated.get(operator_name(node)) if node.op == "call_function" else None
        if name is None or not isinstance(flow, Flow):
            continue
        module, channels = model.get_submodule(module_of(node)), shape_after(solution, flow)[1]
        if isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm) and (
            getattr(module, name, channels) != channels
        ):
            undoing.set_attribute(module, name, channels)


def _sizes(module: nn.Module) -> dict[str, Any]:
    held = {**module._parameters, **module._buffers}
    shapes = {name: tuple(one.shape) for name, one in held.items() if one is not None}
    weight = shapes.get("weight", ())
    found: dict[str, Any] = {}
    match module:
        case nn.Linear():
            found = {"out_features": weight[0], "in_features": weight[1]}
        case nn.modules.conv._ConvNd():
            sides = (weight[0], weight[1] * module.groups)
            names = ("out_channels", "in_channels")
            found = dict(zip(names[::-1] if module.transposed else names, sides, strict=True))
        case nn.modules.batchnorm._NormBase():
            found = {"num_features": next(shape[0] for shape in shapes.values() if shape)}
        case nn.GroupNorm():
            found = {"num_channels": weight[0]}
        case nn.Embedding():
            found = {"embedding_dim": weight[1]}
        case nn.PReLU():
            found = {"num_parameters": weight[0]}
        case nn.MultiheadAttention():
            found = _sizes_of_attention(module, shapes)
        case nn.RNNBase():
            found = {
                "input_size": shapes["weight_ih_l0"][1],
                "hidden_size": shapes["weight_hh_l0"][1],
            }
    if is_conv1d(module):
        found = {"nf": weight[1], "nx": weight[0]}
    return found


def _sizes_of_attention(
    module: nn.MultiheadAttention, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Any]:
    packed = shapes.get("in_proj_weight")
    rows, keys, values = (
        (packed[0] // 3, packed[1], packed[1])
        if packed
        else (
            shapes["q_proj_weight"][0],
            shapes["k_proj_weight"][1],
            shapes["v_proj_weight"][1],
        )
    )
    return {
        "num_heads": rows // module.head_dim,
        "embed_dim": module.out_proj.weight.shape[0],
        "kdim": keys,
        "vdim": values,
    }


def is_conv1d(module: nn.Module) -> bool:
    """Tell whether a module is the linear layer of ``transformers`` that GPT-2 uses.

    Args:
        module: the module.
    """
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")
