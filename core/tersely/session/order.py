"""The order of calls: the state that a call needs a session to be in, and what to call first."""

from __future__ import annotations

from typing import Literal, TypeAlias

from tersely.errors import SessionError

State: TypeAlias = Literal["attached", "suspended", "finalized", "detached"]


def need_attached(state: State, call: str) -> None:
    """Refuse a call on a finished session, or on one that is suspended.

    Args:
        state: what the session is.
        call: the method that was called.

    Raises:
        SessionError: the session is finalized or detached, or the model is dense for a while.
    """
    _need_compressed(state, call)
    if state != "attached":
        raise SessionError(
            f"{call}() needs an attached session, this one was {state}; call "
            "tersely.attach(model, recipe) for a new one"
        )


def need_values(state: State, call: str) -> None:
    """Refuse to show what a detached session no longer has, or a suspended one has put away.

    Args:
        state: what the session is.
        call: the method that was called.

    Raises:
        SessionError: the session is detached, or the model is dense for a while.
    """
    _need_compressed(state, call)
    if state == "detached":
        raise SessionError(
            f"{call}() has nothing to show: the session was detached and its masks are gone; "
            "save() before detach() to keep them"
        )


def _need_compressed(state: State, call: str) -> None:
    if state == "suspended":
        raise SessionError(
            f"{call}() was called inside 'with session.suspended():', where the model is dense and "
            "has no masks, scales or taps; call it after the block"
        )
