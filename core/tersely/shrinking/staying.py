"""The masked slices that stay after all, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping

from tersely.shrinking.flow import Trace
from tersely.shrinking.report import Stay, hint_for
from tersely.shrinking.solve import Solution, slices_lost


def staying_slices(trace: Trace, solution: Solution) -> tuple[Stay, ...]:
    """Name the masked slices that stay, with the first reason that is known of each.

    Args:
        trace: what flows through the masked model.
        solution: what is removed.
    """
    reasons: dict[int, str] = {}
    for label, reason in sorted(trace.labels.reasons.items()):
        reasons.setdefault(label, reason)
    found: list[Stay] = []
    for name, flow in trace.roots.items():
        kept = trace.source.kept(name)
        if kept is None or flow.ndim <= 1:
            continue
        for layer in flow.layers:
            dims = [dim for dim, size in enumerate(layer.shape) if size > 1]
            if len(dims) != 1 or dims[0] > 1:
                continue
            staying = slices_lost(kept, layer) & ~solution.of(layer)
            counts: dict[str, int] = {}
            for label in layer[staying].tolist():
                why = _why(solution, reasons, label)
                counts[why] = counts.get(why, 0) + 1
            found += [
                Stay(name, dims[0], count, why, hint_for(why)) for why, count in counts.items()
            ]
    return tuple(found)


def _why(solution: Solution, reasons: Mapping[int, str], label: int) -> str:
    component = int(solution.component[label])
    if component in solution.why:
        return solution.why[component]
    if label in reasons:
        return reasons[label]
    return "what it is tied to stays"
