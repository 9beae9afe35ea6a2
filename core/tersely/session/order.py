"""The order of calls: what a session must be for a call to make sense, and what to call first."""

from __future__ import annotations

from typing import Literal, TypeAlias

from tersely.errors import SessionError

State: TypeAlias = Literal["attached", "finalized", "detached"]


def need_attached(state: State, call: str) -> None:
    """Refuse a call on a finished session.

    Args:
        state: what the session is.
        call: the method that was called.

    Raises:
        SessionError: the session is finalized or detached.
    """
    if state != "attached":
        raise SessionError(
            f"{call}() needs an attached session, this one was {state}; call "
            f"tersely.attach(model, recipe) for a new one"
        )


def need_values(state: State, call: str) -> None:
    """Refuse to show what a detached session no longer has.

    Args:
        state: what the session is.
        call: the method that was called.

    Raises:
        SessionError: the session is detached.
    """
    if state == "detached":
        raise SessionError(
            f"{call}() has nothing to show: the session was detached and its masks are gone; "
            f"save() before detach() to keep them"
        )
