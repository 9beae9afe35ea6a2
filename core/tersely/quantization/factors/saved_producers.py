"""What can take the factors of inputs, as a saved session keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from tersely.engine.targets.binding import Binding, BoundTarget
from tersely.errors import SessionFileError
from tersely.json_value import Json
from tersely.quantization.factors.output_forms import OutputForm
from tersely.quantization.factors.output_rows import OutputRows
from tersely.quantization.factors.producers import Found, Producer


def describe_producers(found: Found) -> dict[str, Json]:
    """Return what a saved session keeps of them.

    Args:
        found: what can take the factors of each weight.
    """
    return {
        bound.plan.name: one
        if isinstance(one, str)
        else {"module": one.name, **attrs.asdict(one.form)}
        for bound, one in found.items()
    }


def rebuilt_producers(
    saved: Mapping[str, Json], bound_targets: Sequence[BoundTarget], binding: Binding
) -> Found:
    """Return what can take factors as it was saved.

    Args:
        saved: what `describe_producers` returned.
        bound_targets: all quantization targets.
        binding: the plan, bound to the model.

    Raises:
        SessionFileError: the model has no such module.
    """
    universe = binding.owners.universe
    by_name = {bound.plan.name: bound for bound in bound_targets}
    found: Found = {}
    for name, one in saved.items():
        bound = by_name.get(name)
        if bound is None:
            raise SessionFileError(
                f"the saved session has factors of {name!r}, which is not a target of this "
                "session; load it with the recipe and the model that it was saved with",
                target=name,
            )
        if isinstance(one, str):
            found[bound] = one
            continue
        if one["module"] not in universe.index:
            raise SessionFileError(
                f"the saved session folds factors of {name!r} into {one['module']!r}, which the "
                "model does not have; load it with the model that it was saved with",
                target=name,
            )
        module = universe.modules[universe.index[one["module"]]]
        found[bound] = Producer(module, str(one["module"]), _form_of(one, name))
    return found


def _form_of(saved: Mapping[str, Any], name: str) -> OutputForm:
    try:
        rows = saved.get("rows")
        return OutputForm(
            int(saved["dim"]),
            is_offset=bool(saved["is_offset"]),
            rows=None if rows is None else OutputRows(**rows),
            weight=str(saved.get("weight", "weight")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SessionFileError(
            f"the saved session does not say how the outputs of {saved['module']!r} are the inputs "
            f"of {name!r}: {error}; save it again",
            target=name,
        ) from error
