"""Rewrites one entry of an NNI 1.x or 2.x config list, key by key."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

from tersely.document.entries import EXCLUDES, SELECTORS
from tersely.document.messages.wording import show
from tersely.document.migration.legacy import LEGACY_ANY_TYPE, LEGACY_KEYS
from tersely.document.migration.legacy_quantization import QUANTIZATION_KEYS, rewrite_quantization
from tersely.document.path import Path
from tersely.document.reading.positions import Finding
from tersely.json_value import Json

Entry = dict[str, Json]

WEIGHTED_TYPES = (
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Linear",
    "Bilinear",
    "Embedding",
    "EmbeddingBag",
)
"""What ``default`` means in the ``op_types`` of NNI: layers that have a weight."""


class Rewriting:
    """What could not be rewritten so far; mutable because a list is rewritten entry by entry."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def refuse(self, path: Path, message: str, hint: str | None = None) -> None:
        """Note something that this specification does not support."""
        self.findings.append(Finding(path, message, hint))

    def mappings(self, config_list: Json) -> list[tuple[int, Entry]]:
        """Return the entries of a config list with their indices, noting all other items."""
        if not isinstance(config_list, list):
            self.refuse((), f"found {show(config_list)}, expected a config list")
            return []
        for index, entry in enumerate(config_list):
            if not isinstance(entry, dict):
                self.refuse((index,), f"found {show(entry)}, expected an entry (a mapping)")
        return [each for each in enumerate(config_list) if isinstance(each[1], dict)]


def rewrite_entry(
    entry: Entry, index: int, rewriting: Rewriting, *, is_exclude: bool = False
) -> Entry:
    """Return an entry in this specification.

    Args:
        entry: the entry as written, which is not changed.
        index: its place in the config list.
        rewriting: notes what has no meaning here.
        is_exclude: whether it only says which modules to leave out.
    """
    new: Entry = {}
    for key, value in entry.items():
        if value is None or key == "exclude" or key in QUANTIZATION_KEYS:
            continue
        if key in _REWRITERS:
            _REWRITERS[key](new, value, (index, key), rewriting)
        elif key in LEGACY_KEYS:
            message = f"{key!r} has no meaning in a config list of this specification"
            rewriting.refuse((index, key), message, LEGACY_KEYS[key])
        else:
            new[key] = copy.deepcopy(value)
    if is_exclude:
        return {key: value for key, value in new.items() if key.startswith("op_")}
    for path, message, hint in rewrite_quantization(new, entry):
        rewriting.refuse((index, *path), message, hint)
    return new


def _names(new: Entry, value: Json, path: Path, rewriting: Rewriting) -> None:
    if _are_strings(value):
        new[str(path[-1])] = list(value)
    else:
        rewriting.refuse(path, f"found {show(value)}, expected a list of strings")


def _are_strings(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _types(new: Entry, value: Json, path: Path, rewriting: Rewriting) -> None:
    if not _are_strings(value):
        rewriting.refuse(path, f"found {show(value)}, expected a list of strings")
        return
    if LEGACY_ANY_TYPE in value:
        value = [name for name in value if name != LEGACY_ANY_TYPE] + list(WEIGHTED_TYPES)
        value = list(dict.fromkeys(value))
    new["op_types"] = value


def _partial_names(new: Entry, value: Json, path: Path, rewriting: Rewriting) -> None:
    if not _are_strings(value):
        rewriting.refuse(path, f"found {show(value)}, expected a list of strings")
        return
    new["op_names_re"] = [*new.get("op_names_re", []), *(f".*{re.escape(name)}" for name in value)]


def _ratio(new: Entry, value: Json, path: Path, rewriting: Rewriting) -> None:
    del path, rewriting
    new["sparse_ratio"] = value


def _total(new: Entry, value: Json, path: Path, rewriting: Rewriting) -> None:
    del rewriting
    new["sparse_ratio"] = value
    new["global_group_id"] = f"total_sparsity_{path[0]}"


def _largest(new: Entry, value: Json, path: Path, rewriting: Rewriting) -> None:
    if isinstance(value, dict):
        message = "found a largest sparsity for each layer, expected one number"
        hint = "write an entry with op_names and max_sparse_ratio for each layer"
        rewriting.refuse(path, message, hint)
        return
    new["max_sparse_ratio"] = value


_REWRITERS: dict[str, Callable[[Entry, Json, Path, Rewriting], None]] = {
    **dict.fromkeys((*SELECTORS, *EXCLUDES), _names),
    "op_types": _types,
    "op_partial_names": _partial_names,
    "sparsity": _ratio,
    "sparsity_per_layer": _ratio,
    "total_sparsity": _total,
    "max_sparsity_per_layer": _largest,
}
