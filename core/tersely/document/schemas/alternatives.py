"""Picks the alternative of a JSON Schema that somebody meant, where none of them fits."""

from __future__ import annotations

from collections.abc import Sequence

from tersely.document.schemas.mismatch import Mismatch


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
