"""From labels that go to cuts of parameters and buffers."""

from __future__ import annotations

import attrs

from tersely.engine.cutting import Cut
from tersely.shrinking.labels import varying
from tersely.shrinking.solve import Solution


def cuts_of(solution: Solution) -> dict[str, Cut]:
    """Return the cut of each parameter and buffer that loses something.

    Args:
        solution: what goes.
    """
    found: dict[str, Cut] = {}
    for name, flow in solution.trace.roots.items():
        plain = attrs.evolve(flow, layers=tuple(x for x in flow.layers if len(varying(x)) <= 1))
        kept = list(solution.kept_indices(plain))
        columns = None
        for layer in flow.layers:
            if len(varying(layer)) > 1 and bool(solution.of(layer).any()):
                rows = layer.reshape(layer.shape[:2])
                if kept[0] is not None:
                    rows = rows[kept[0]]
                stays = ~solution.of(rows)
                width = int(stays[0].sum())
                columns = stays.nonzero()[:, 1].view(rows.shape[0], width)
        after = [
            size if positions is None else positions.numel()
            for size, positions in zip(flow.shape, kept, strict=True)
        ]
        if columns is not None:
            after[1] = columns.shape[1]
        if tuple(after) != flow.shape:
            found[name] = Cut(name, flow.shape, tuple(after), tuple(kept), columns)
    return found
