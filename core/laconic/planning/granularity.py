"""From a granularity as a document spells it to the blocks of one target (rules G1 to G4)."""

from __future__ import annotations

import json
from functools import lru_cache

import attrs
from jsonschema import Draft202012Validator

from laconic.algorithms import Granularity
from laconic.blocks import (
    Blocks,
    channel_blocks,
    count_blocks,
    element_blocks,
    resolve_size,
    tensor_blocks,
)
from laconic.document.suggest import nearest
from laconic.planning.plan import TargetPlan
from laconic.registry.descriptors import GranularityInfo, Json, PrunerInfo, QuantizerInfo
from laconic.registry.registry import registry

DEFAULT = "default"
BUILT_IN = ("element", "output_channel", "tensor")
"""Values of a descriptor's ``default_granularity`` that need no granularity plugin."""


@attrs.frozen
class Spelling:
    """A granularity value, understood.

    Attributes:
        name: the granularity's name in the registry.
        arguments: keyword arguments of its implementation.
    """

    name: str
    arguments: dict[str, Json]


def divide(
    value: Json, target: TargetPlan, shape: tuple[int, ...], info: PrunerInfo | QuantizerInfo
) -> Blocks:
    """Cut one target into blocks.

    Args:
        value: the granularity as the document spells it.
        target: the target, whose shape may still be unknown in the plan.
        shape: the tensor's shape; for an input or output with the batch in dimension 0.
        info: the algorithm's descriptor, for what ``default`` means and what it supports.

    Returns:
        Blocks that divide the shape.

    Raises:
        ValueError: the granularity is unknown, not supported here, or does not divide the shape;
            the text says what to write instead.
    """
    if value is None or value == DEFAULT:
        value = info.default_granularity
    elif info.granularities is not None:
        name = understand(value).name
        if name not in info.granularities:
            raise ValueError(
                f"{info.name} does not support granularity {_shown(value)}; it supports "
                f"{', '.join([DEFAULT, *info.granularities])}"
            )
    if value in BUILT_IN:
        return _built_in(value, target, shape)
    spelling = understand(value)
    kinds = registry().granularities.info(spelling.name).target_kinds
    if target.kind not in kinds:
        raise ValueError(
            f"granularity {_shown(value)} cannot divide {_article(target.kind)} {target.kind}, "
            f"only: {', '.join(kinds)}"
            + ("; write per_channel instead" if target.kind in ("input", "output") else "")
        )
    blocks = implementation(value).blocks(shape, target)
    _check(blocks, shape, value)
    return blocks


def _built_in(value: str, target: TargetPlan, shape: tuple[int, ...]) -> Blocks:
    rank = len(shape)
    is_activation = target.kind in ("input", "output")
    if value == "tensor" or rank == 0:
        return tensor_blocks(rank)
    if value == "element":
        # Samples share one decision: a mask or scale cannot depend on who else is in the batch.
        return Blocks((-1, *(1,) * (rank - 1))) if is_activation else element_blocks(rank)
    if is_activation:
        return channel_blocks(rank, target.channel_dim if rank > 1 else 0)
    return channel_blocks(rank, min(target.output_dim, rank - 1))


def _check(blocks: Blocks, shape: tuple[int, ...], value: Json) -> None:
    try:
        count_blocks(blocks.size, shape)
        if blocks.scope is not None:
            scope = resolve_size(blocks.scope, shape)
            size = resolve_size(blocks.size, shape)
            if any(outer % inner for outer, inner in zip(scope, size, strict=True)):
                raise ValueError(f"its scope {list(scope)} is no multiple of its block {size}")
            count_blocks(blocks.scope, shape)
    except ValueError as error:
        raise ValueError(f"granularity {_shown(value)}: {error}") from None


def understand(value: Json) -> Spelling:
    """Find the granularity that a value of the document means.

    Args:
        value: a name, ``{name: options}``, or any value some granularity accepts.

    Raises:
        ValueError: no installed granularity accepts it; the text names the nearest.
    """
    return _understand(json.dumps(value, sort_keys=True), registry().revision)


@lru_cache(maxsize=1024)
def _understand(encoded: str, revision: int) -> Spelling:
    value = json.loads(encoded)
    catalog = registry().granularities
    if isinstance(value, str) and value in catalog:
        if not Draft202012Validator(catalog.info(value).options).is_valid({}):
            raise ValueError(
                f"granularity {value!r} needs to know more: {catalog.info(value).summary}"
            )
        return Spelling(value, {})
    for name in catalog.names():
        info = catalog.info(name)
        if _is_named(value, name, info):
            return Spelling(name, dict(value[name]))
        if info.values is not None and Draft202012Validator(info.values).is_valid(value):
            return Spelling(name, {"value": value})
    near = nearest(value, catalog.names()) if isinstance(value, str) else ()
    hint = f"; did you mean {near[0]!r}?" if near else ""
    names = ", ".join([DEFAULT, *catalog.names()])
    missing = "" if catalog.names() else " (laconic-granularity is not installed)"
    raise ValueError(
        f"no installed granularity accepts {_shown(value)}; known: {names}{missing}{hint}"
    )


def _is_named(value: Json, name: str, info: GranularityInfo) -> bool:
    return (
        isinstance(value, dict)
        and list(value) == [name]
        and isinstance(value[name], dict)
        and Draft202012Validator(info.options).is_valid(value[name])
    )


def implementation(value: Json) -> Granularity:
    """Return the granularity object for a value, made once.

    Args:
        value: the granularity as the document spells it.

    Raises:
        ValueError: as in `understand`.
        BrokenPluginError: its plugin cannot be imported.
    """
    return _implementation(json.dumps(value, sort_keys=True), registry().revision)


@lru_cache(maxsize=1024)
def _implementation(encoded: str, revision: int) -> Granularity:
    spelling = understand(json.loads(encoded))
    found: Granularity = registry().granularities[spelling.name](**spelling.arguments)
    return found


def _shown(value: Json) -> str:
    return json.dumps(value)


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"
