"""The row of a pruned weight as a report has it; a test changes what it is about."""

from typing import Any

from tersely.reporting.rows import ReportRow


def pruned_row(**changes: Any) -> ReportRow:
    """Return the row of a weight of which half is masked, with other values where given."""
    values = {
        "module": "fc",
        "target": "weight",
        "kind": "parameter",
        "method": "pruning",
        "algorithm": "level",
        "granularity": "default",
        "blocks": (1, 1),
        "shape": (2, 4),
        "elements": 8,
        "masked": 4,
        "request": "0.5",
        "requested": 0.5,
        "sparsity": 0.5,
    }
    return ReportRow(**{**values, **changes})
