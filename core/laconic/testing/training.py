"""What contracts do before they look: calibrate, train some steps, and gather what is observed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from laconic.algorithms import PruningTarget
from laconic.registry.descriptors import Json
from laconic.session.module_observing import watch_modules
from laconic.session.observing import evaluating
from laconic.session.opening import attach
from laconic.session.pruning import rank, target_of
from laconic.session.session import Session
from laconic.testing.models import contract_batches

STEPS = 3
"""Enough for an algorithm to learn something that its first values do not show."""


def prepare(net: nn.Module, recipe: Mapping[str, Json]) -> Session:
    """Return a session whose algorithms have seen all they may need.

    Args:
        net: a `ContractNet`; instrumented, and trained a little.
        recipe: the recipe to attach.
    """
    session = attach(net, recipe)
    session.calibrate(contract_batches())
    needs = {session.plan.recipe.stages[target.stage].algorithm for target in session.plan}
    if needs:
        train(session)
    return session
