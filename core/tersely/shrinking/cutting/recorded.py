"""A shrink as JSON data, and the same cut made again in a model of the original size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tersely.engine.cutting import Cut
from tersely.errors import SessionFileError
from tersely.json_value import Json
from tersely.shrinking.cutting.apply import Undoing, cut_tensors
from tersely.shrinking.cutting.attentions import attend_as_cut
from tersely.shrinking.shrink import named_tensors


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
                known = getattr(model.get_submodule(path), name, None)
                new = tuple(value) if isinstance(known, tuple) else value
                undoing.set_attribute(model.get_submodule(path), name, new)
    except BaseException:
        undoing.undo()
        raise
    return undoing


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
            f"build the model as it was before pruning",
            target=cut.name,
        )


def _cut_of(data: Mapping[str, Any]) -> Cut:
    def positions(one: Any) -> Tensor | None:
        return None if one is None else torch.tensor(one, dtype=torch.int64)

    return Cut(
        data["name"],
        tuple(data["before"]),
        tuple(data["after"]),
        tuple(positions(one) for one in data["kept"]),
        positions(data["columns"]),
    )
