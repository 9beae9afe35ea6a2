"""Why masked slices stay, and changes of the config that would free them."""

from __future__ import annotations

from tersely.shrinking.graph.flow import Trace
from tersely.shrinking.graph.labels import varying
from tersely.shrinking.graph.solution import Solution, slices_lost
from tersely.shrinking.report import DEPENDS, Stay, hint_for

_NAMED = 3
"""The number of weights that a hint names."""


def staying_slices(trace: Trace, solution: Solution) -> tuple[Stay, ...]:
    """Return the masked slices that stay, with the first known reason for each.

    Args:
        trace: the walk over the masked model.
        solution: the labels that are removed.
    """
    found: list[Stay] = []
    for name, flow in trace.roots.items():
        kept = trace.source.kept(name)
        if kept is None or flow.ndim <= 1:
            continue
        for layer in flow.layers:
            dims = varying(layer)
            if len(dims) != 1 or dims[0] > 1:
                continue
            staying = slices_lost(kept, layer) & ~solution.of(layer)
            labels: dict[str, list[int]] = {}
            for label in layer[staying].tolist():
                reason = solution.reason(label) or "it meets something that cannot be cut"
                labels.setdefault(reason, []).append(label)
            found += [
                Stay(name, dims[0], len(own), why, _hint(trace, solution, name, why, own[0]))
                for why, own in labels.items()
            ]
    return tuple(found)


def _hint(trace: Trace, solution: Solution, name: str, reason: str, label: int) -> str | None:
    """Return what frees a slice: if other weights make the same channel, those to mask as well."""
    makers = _unmasked_makers(trace, solution, label) if DEPENDS in reason else []
    others = [one for one in makers if one != name]
    if others:
        listed = ", ".join(others[:_NAMED])
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        return f"mask the same channels of {listed}{more}: dependency_groups: auto, or one group id"
    if makers:
        return f"mask whole groups or heads of {name}: a granularity of as many rows"
    return hint_for(reason)


def _unmasked_makers(trace: Trace, solution: Solution, label: int) -> list[str]:
    """The weights that make the same channel and are not masked there."""
    found = []
    for name, layer in trace.makers.items():
        met = solution.met(label, layer)
        if bool((met & ~solution.masked[layer]).any()):
            found.append(name)
    return found
