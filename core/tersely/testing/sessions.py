"""Checks of an algorithm in a session, the same for every method."""

from __future__ import annotations

import tempfile
from abc import abstractmethod

import attrs
import torch
from torch import nn

from tersely.session.loading import load_session
from tersely.session.session import Session
from tersely.testing.contract import Contract, expect
from tersely.testing.models import has_own_classes, with_weights_of
from tersely.testing.untouched.modules import untouched_modules


@attrs.define(eq=False)
class SessionChecks(Contract):
    """Checks that compress a small net the way a user does."""

    @abstractmethod
    def prepared(self) -> Session:
        """Return a session over a contract net, just before `compress`, which finishes plain."""

    @abstractmethod
    def put_in_force(self, session: Session) -> None:
        """Call `compress`.

        Args:
            session: a prepared session.
        """

    def check_detach(self) -> None:
        """Detaching restores the dense model bit for bit, including modes, hooks and flags."""
        session = self.prepared()
        before = {name: value.clone() for name, value in session.model.named_parameters()}
        with untouched_modules(session.model):
            self.put_in_force(session)
        dense = session.detach()
        for name, value in dense.named_parameters():
            expect(torch.equal(value, before[name]), f"{name} was not restored")
        expect_plain(dense, "detached")


def expect_plain(model: nn.Module, state: str) -> None:
    """Check that nothing of a session is left on a contract net.

    Args:
        model: the net.
        state: what was done with it, for the message.

    Raises:
        ContractError: a class or a buffer is left.
    """
    is_plain = has_own_classes(model)
    expect(is_plain, f"the {state} model still has instruments or buffers")


def restored(session: Session) -> Session:
    """Save a session, and return it restored on a new contract net with the same weights.

    Args:
        session: a session over a contract net.
    """
    with tempfile.TemporaryDirectory() as folder:
        session.save(folder)
        return load_session(with_weights_of(session.model), folder)
