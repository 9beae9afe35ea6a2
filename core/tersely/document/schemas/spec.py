"""Finds the specification, in a wheel and in an editable install."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from tersely.json_value import Json


@functools.cache
def spec_directory() -> Path:
    """Return the folder of the specification: its schemas, rules and cases.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    package = Path(__file__).resolve().parent.parent.parent
    # A wheel carries the folder inside the package; a checkout has it at its root.
    for folder in (package / "spec", package.parent.parent / "spec"):
        if (folder / "recipe.schema.json").is_file():
            return folder
    raise FileNotFoundError(
        f"the specification is neither in {package / 'spec'} nor in "
        f"{package.parent.parent / 'spec'}: install tersely again"
    )


def read_schema(name: str) -> dict[str, Json]:
    """Return one of the specification's JSON Schemas.

    Args:
        name: ``config_list``, ``recipe`` or ``job``.
    """
    text = (spec_directory() / f"{name}.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Json] = json.loads(text)
    return schema
