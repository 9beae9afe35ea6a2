"""One error of JSON Schema as plain data, and which of several alternatives was meant.

Only this file knows the validator's own form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from tersely.document.path import Path
from tersely.json_value import Json

if TYPE_CHECKING:
    from jsonschema import ValidationError


@attrs.frozen(eq=False)
class Mismatch:
    """A value that a schema refuses.

    Attributes:
        path: where the value is in the data.
        depth: how far that is inside the value that the alternatives around it were tried on.
        keyword: the keyword that refuses it.
        rule: the keyword's value.
        schema: the mapping that holds the keyword, or False.
        value: what was found.
        branches: for alternatives, what is wrong with each of them.
        is_key: whether ``value`` is a key of the mapping at ``path``.
    """

    path: Path
    depth: int
    keyword: str
    rule: Json
    schema: Json
    value: Json
    branches: tuple[tuple[Mismatch, ...], ...] = ()
    is_key: bool = False

    @property
    def title(self) -> str:
        """What the schema calls such a value."""
        return str(self.schema.get("title", "the mapping"))

    @property
    def properties(self) -> dict[str, Json]:
        """The keys that the schema names, with the schemas of their values."""
        found: dict[str, Json] = self.schema.get("properties", {})
        return found

    def unnamed_keys(self) -> list[str]:
        """Return the keys of the value that the schema does not name."""
        return [key for key in self.value if key not in self.properties]

    def moved(self, around: int, path: Path, here: Json, there: Json) -> Mismatch:
        """Return what is wrong with a value that the schema cannot tell from another one.

        Args:
            around: how many steps of ``path`` lead to the value that this mismatch is about.
            path: where the other value is.
            here: the value.
            there: the other value, whose keys correspond to its keys one by one.
        """
        steps, inside, value = list(path), here, there
        for step in self.path[around:]:
            steps.append(_corresponding(step, inside, value))
            inside, value = inside[step], value[steps[-1]]
        return Mismatch(
            path=tuple(steps),
            depth=self.depth,
            keyword=self.keyword,
            rule=self.rule,
            schema=self.schema,
            value=_corresponding(self.value, inside, value) if self.is_key else value,
            branches=tuple(
                tuple(child.moved(around, path, here, there) for child in branch)
                for branch in self.branches
            ),
            is_key=self.is_key,
        )


def _corresponding(step: Json, here: Json, there: Json) -> Json:
    """Return the key of one mapping that is where a key of the other is; or an index."""
    return list(there)[list(here).index(step)] if isinstance(here, dict) else step


def mismatch_of(error: ValidationError) -> Mismatch:
    """Return an error of the validator as plain data.

    Args:
        error: as `jsonschema` reports it.
    """
    branches: dict[int, list[Mismatch]] = {}
    for child in error.context or ():
        branches.setdefault(int(child.relative_schema_path[0]), []).append(mismatch_of(child))
    return Mismatch(
        path=tuple(error.absolute_path),
        depth=len(error.path),
        keyword=str(error.validator),
        rule=error.validator_value,
        schema=error.schema,
        value=error.instance,
        branches=tuple(tuple(children) for children in branches.values()),
        is_key="propertyNames" in error.absolute_schema_path,
    )


def meant_branch(mismatch: Mismatch) -> Sequence[Mismatch] | None:
    """Return what is wrong with the alternative that a list or mapping was meant for.

    Args:
        mismatch: of ``anyOf`` or ``oneOf``.

    Returns:
        The mismatches of the alternative that is of the right form and that most of the value
        fits, or None when none is of the right form.
    """
    if not isinstance(mismatch.value, (list, dict)):
        return None
    formed = [branch for branch in mismatch.branches if not any(map(_is_outside, branch))]
    return min(formed, key=_badness, default=None)


def is_only_required(mismatch: Mismatch) -> bool:
    """Tell whether the alternatives only say that one key of several has to be there.

    Args:
        mismatch: of ``anyOf`` or ``oneOf``.
    """
    return all(isinstance(branch, dict) and set(branch) == {"required"} for branch in mismatch.rule)


def _is_outside(mismatch: Mismatch) -> bool:
    """Whether a value has not even the form of an alternative."""
    if mismatch.depth > 0:
        return False
    if mismatch.keyword in ("anyOf", "oneOf"):
        return all(_is_outside(child) for branch in mismatch.branches for child in branch)
    return mismatch.keyword in ("type", "enum", "const", "pattern")


def _badness(branch: Sequence[Mismatch]) -> tuple[int, int, int]:
    # The deeper the mistakes lie, the more of the value fits.
    depth = max(mismatch.depth for mismatch in branch)
    return -depth, sum(mismatch.keyword == "type" for mismatch in branch), len(branch)
