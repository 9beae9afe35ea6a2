"""A shrink as JSON data, and the same cut made again in a model of the original size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tersely.engine.state.cutting import Cut
from tersely.errors import SessionFileError, TerselyError
from tersely.json_value import Json
from tersely.shrinking.cutting.apply import Undoing, cut_tensors
from tersely.shrinking.cutting.attentions import attend_as_cut
from tersely.shrinking.cutting.held_numbers import held_numbers, write_held
from tersely.shrinking.graph.program import named_tensors


def record_of(cuts: Mapping[str, Cut], undoing: Undoing, model: nn.Module) -> dict[str, Json]:
    """Return what a shrink did, as JSON data.

    Args:
        cuts: what was cut.
        undoing: remembers the attributes that were written.
        model: the model.
    """
    names = {id(module): name for name, module in model.named_modules()}
    return {
        "tensors": [cut.to_dict() for cut in cuts.values()],
        "attributes": [
            [names[id(owner)], name, list(value) if isinstance(value, tuple) else value]
            for owner, name, value in undoing.attributes()
        ],
    }


def cut_again(model: nn.Module, records: Sequence[Mapping[str, Any]]) -> Undoing:
    """Cut a model of the original size as it was cut before; one that is small stays as it is.

    Args:
        model: the model.
        records: what `record_of` returned, one for each shrink, in order.

    Returns:
        What puts the model back.

    Raises:
        SessionFileError: the model has neither the original shapes nor the cut ones; it is as it
            was.
    """
    undoing = Undoing()
    if not records or _fits(model, records, of="after"):
        return undoing
    try:
        for record in records:
            tensors = named_tensors(model)
            cuts = {str(one["name"]): _cut_of(one) for one in record["tensors"]}
            for name, cut in cuts.items():
                _need_shape(tensors.get(name), cut)
            attend_as_cut(model, cuts, undoing)
            cut_tensors(tensors, cuts, undoing)
            for path, name, value in record["attributes"]:
                owner = model.get_submodule(path)
                if "." in name:
                    number = _like(held_numbers(owner)[name], value, name)
                    write_held(model, owner, name, number, undoing)
                else:
                    undoing.set_attribute(owner, name, _like(getattr(owner, name), value, name))
    except BaseException as error:
        undoing.undo()
        if isinstance(error, _UNUSABLE) and not isinstance(error, TerselyError):
            raise SessionFileError(
                f"the saved session's record of what was cut does not fit this model: {error}"
            ) from error
        raise
    return undoing


_UNUSABLE = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def _like(known: object, value: object, name: str) -> Any:
    """Return a saved length, switch or list of lengths, as the module has it; nothing else is."""
    new = tuple(value) if isinstance(known, tuple) and isinstance(value, list) else value
    for kind in (bool, int):
        if type(known) is kind and type(new) is kind:
            return new
    if isinstance(known, (tuple, list)) and type(new) is type(known):
        numbers = (*known, *new)
        if len(known) == len(new) and all(type(one) is int for one in numbers):
            return new
    raise TypeError(f"{name} is {known!r}, and the record has {value!r} for it")


def _fits(model: nn.Module, records: Sequence[Mapping[str, Any]], *, of: str) -> bool:
    tensors = named_tensors(model)
    final = {one["name"]: tuple(one[of]) for record in records for one in record["tensors"]}
    return all(name in tensors and tensors[name].shape == shape for name, shape in final.items())


def _need_shape(tensor: Tensor | None, cut: Cut) -> None:
    found = None if tensor is None else list(tensor.shape)
    if found != list(cut.before):
        raise SessionFileError(
            f"the saved session was shrunk from a model in which {cut.name} has the shape "
            f"{list(cut.before)}; this model has {'no such tensor' if found is None else found}; "
            "build the model as it was before pruning",
            target=cut.name,
        )


def _cut_of(data: Mapping[str, Any]) -> Cut:
    def positions(one: Any) -> Tensor | None:
        return None if one is None else torch.tensor(one, dtype=torch.int64)

    cut = Cut(
        data["name"],
        tuple(data["before"]),
        tuple(data["after"]),
        tuple(positions(one) for one in data["kept"]),
        positions(data["columns"]),
    )
    for length, left, kept in zip(cut.before, cut.after, cut.kept, strict=True):
        if kept is None:
            fits = left == length or cut.columns is not None
        else:
            fits = len({one for one in kept.tolist() if one < length}) == len(kept) == left
        if not fits:
            raise ValueError(
                f"{left} of the {length} positions of {cut.name} stay, and the record has others"
            )
    return cut
