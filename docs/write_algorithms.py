"""Write `reference/algorithms.md` from the descriptors of the official plugins.

    python docs/write_algorithms.py

Run it after adding an algorithm or changing a descriptor; tests/docs compares the page with it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tersely
from tersely import contracts
from tersely.planning.stages.algorithms import is_declared, pruner_needs
from tersely.registry.catalog import Catalog
from tersely.registry.descriptors import Descriptor
from tersely.registry.kinds import KINDS, Kind

PAGE = Path(__file__).with_name("reference") / "algorithms.md"

ABOUT = {
    "pruner": (
        "Pruners",
        "`algorithm` of a [pruning stage](recipe.md); [what they do](../pruning.md).",
    ),
    "quantizer": (
        "Quantizers",
        "`algorithm` of a [quantization stage](recipe.md); [what they do](../quantization.md).",
    ),
    "loss": (
        "Distillation losses",
        "`apply_method` of a distillation entry; [what they compare](../distillation-losses.md).",
    ),
    "granularity": ("Granularities", "`granularity` of an [entry](config.md)."),
    "schedule": ("Schedules", "`schedule` of a pruning stage."),
    "exporter": (
        "Exporters",
        "`format` of an export; [what each format holds](../exporting.md).",
    ),
}
"""Kind -> heading, and where its names are written."""

OPENING = """\
# Algorithms

Everything that the official plugins provide. `tersely plugins list` shows what is installed on
your machine, and `tersely plugins info NAME` everything about one name. This page is written by
`docs/write_algorithms.py`.

The cost of a pruner or quantizer is what has to happen before it can decide; a loss is computed in
every training step.

| cost | what happens |
| --- | --- |
| none | one pass over the tensors |
| calibration | some batches run through the model, forward only |
| block by block | the same, each block on the outputs of the compressed blocks before it |
| solves | new values for each weight are computed from the observed inputs |
| gradients | backward passes of your training loop, a few of which are enough |
| training | it learns or observes values during your training |
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page as the installed plugins describe themselves."""
    sections = [
        _section(kind, *ABOUT[kind.name]) for name in ABOUT for kind in KINDS if kind.name == name
    ]
    return "\n".join([OPENING, *sections])


def _section(kind: Kind, heading: str, about: str) -> str:
    catalog: Catalog[Descriptor] = getattr(tersely.registry(), kind.catalog)
    own = [name for name in catalog if catalog.record(name).distribution == kind.family]
    rows = [_row(kind, catalog, name) for name in own]
    columns = [*rows[0]]
    head = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    body = ["| " + " | ".join(row.values()) + " |" for row in rows]
    return "\n".join([f"## {heading}", "", about, "", *head, *body, ""])


def _row(kind: Kind, catalog: Catalog[Descriptor], name: str) -> Mapping[str, str]:
    info = catalog.info(name)
    row = {"name": f"`{info.name}`", "what it does": _cell(info.summary)}
    if kind.name in ("pruner", "quantizer"):
        row["cost"] = _cost(kind, catalog, name)
    if kind.name == "loss":
        row["needs"] = str(getattr(info, "needs", "nothing"))
    row["options"] = ", ".join(_options(catalog, name)) or "none"
    if kind.name != "exporter":
        row["paper"] = _cell(info.paper or "")
    return row


def _cost(kind: Kind, catalog: Catalog[Descriptor], name: str) -> str:
    info, implementation = catalog.info(name), catalog[name]
    needs = pruner_needs(name) if kind.name == "pruner" else getattr(info, "needs", None)
    cost = {"nothing": "none", "activations": "calibration"}.get(needs or "nothing", needs)
    if is_declared(contracts.Sequential, implementation, info):
        cost = "block by block"
    if any(
        is_declared(ability, implementation, info)
        for ability in (contracts.Solves, contracts.SolvesWeights)
    ):
        cost = f"{cost}, solves"
    return str(cost)


def _options(catalog: Catalog[Descriptor], name: str) -> Iterator[str]:
    """Yield each option with its default: the schema's, or the implementation's."""
    properties = catalog.info(name).options.get("properties", {})
    stated: Mapping[str, Any] = {}
    if any("default" not in schema for schema in properties.values()):
        parameters = inspect.signature(catalog[name]).parameters
        stated = {
            key: one.default
            for key, one in parameters.items()
            if one.default is not inspect.Parameter.empty
        }
    for option, schema in properties.items():
        default = schema.get("default", stated.get(option, _REQUIRED))
        if default is _REQUIRED:
            yield f"`{option}` (required)"
        elif default is None:
            yield f"`{option}`"
        else:
            yield f"`{option}` {_cell(json.dumps(default, default=str))}"


_REQUIRED = object()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
