"""Checks of a pruner in a session: apply masks, train, save, copy and finalize."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import attrs
import torch

from tersely.json_value import Json
from tersely.session.attaching import attach
from tersely.session.session import Session
from tersely.testing.contract import expect
from tersely.testing.models import contract_batches, contract_net
from tersely.testing.pruners.preparing import (
    check_second_masks,
    compress,
    expect_same_masks,
    prepare,
    share_due,
)
from tersely.testing.sessions import SessionChecks, expect_plain, restored
from tersely.testing.training import train
from tersely.testing.untouched.modules import expect_same_compiled

MODULES = ("conv", "grouped", "transposed", "linear")
"""The layers of a contract net."""


@attrs.define(eq=False)
class PrunerSessionChecks(SessionChecks):
    """Checks that prune a small net the way a user does."""

    def check_training(self) -> None:
        """Training under masks leaves the sparsity unchanged."""
        session = self._compressed()
        before, share = session.sparsity(), share_due(session)
        train(session)
        grows = share_due(session) > share
        expect(
            grows or session.sparsity() == before,
            f"the sparsity is {session.sparsity()} after some steps, it was {before}",
        )

    def check_regrowing(self) -> None:
        """Regrowing keeps the sparsity, both before any gradient and after some steps."""
        check_second_masks(self.make(), attach(contract_net(), self.recipe()))

    def check_save_and_restore(self) -> None:
        """A session restored from disk has the same masks."""
        session = self._compressed()
        other = restored(session)
        expect_same_masks(session, other)
        batch = contract_batches()[0]
        same = torch.equal(session.model(batch), other.model(batch))
        expect(same, "the restored model computes different outputs")

    def check_resume(self) -> None:
        """A session saved and restored during training continues bit for bit."""
        session = self.prepared()
        other = restored(session)
        for one in (session, other):
            if session._engines.pruning.runs[0].is_trained:
                train(one)
            one.calibrate(contract_batches())
            compress(one)
        expect_same_masks(session, other)

    def check_saved_observations(self) -> None:
        """A session saved after observing computes the same masks: no state lies outside of it."""
        session = self.prepared()
        (run,) = session._engines.pruning.runs
        if run.is_looking_again:  # it needs the batches themselves, which are not saved
            return
        other = restored(session)
        for one in (session, other):
            compress(one)
        expect_same_masks(session, other)

    def check_deepcopy(self) -> None:
        """A deep copy of the pruned model computes the same."""
        net = self._compressed().model
        batch = contract_batches()[0]
        expect(
            torch.equal(copy.deepcopy(net)(batch), net(batch)),
            "the copy computes different outputs",
        )

    def check_compile(self) -> None:
        """torch.compile captures the pruned model as one graph that computes the same."""
        net = self._compressed().model
        expect_same_compiled(net, contract_batches()[0])

    def check_finalize(self) -> None:
        """The finished model has no instruments and computes the same as the pruned one."""
        session = self._compressed()
        batch = contract_batches()[0]
        expected = session.model(batch)
        finished = session.finalize()
        torch.testing.assert_close(finished(batch), expected)
        expect_plain(finished, "finished")

    def recipe(
        self,
        granularity: Json = "default",
        ratio: float | None = 0.5,
        modules: Sequence[str] = MODULES,
    ) -> dict[str, Json]:
        """Return a recipe with one pruning stage for layers of a contract net.

        Args:
            granularity: its spelling in a document.
            ratio: the share that is masked; None where the granularity says it.
            modules: the layers.
        """
        entry: dict[str, Json] = {"op_names": list(modules), "target_names": ["weight"]}
        entry |= {"sparse_ratio": ratio, "granularity": granularity}
        stage = {
            "algorithm": self.name,
            "options": dict(self.arguments),
            "config_list": [{key: value for key, value in entry.items() if value is not None}],
        }
        return {"pruning": stage}

    def prepared(self) -> Session:
        """Return a session over a contract net whose pruner has seen what it asks for."""
        return prepare(contract_net(), self.recipe())

    def put_in_force(self, session: Session) -> None:
        """Put masks in force.

        Args:
            session: a prepared session.
        """
        compress(session)

    def _compressed(self) -> Session:
        session = self.prepared()
        compress(session)
        return session
