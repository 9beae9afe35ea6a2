"""The training loop of contracts: a few steps, as a user would write them."""

from __future__ import annotations

import warnings

import torch
from torch import nn
from torch.nn import functional

from tersely.reporting.report import SparsityWarning
from tersely.session.session import Session
from tersely.testing.models import contract_batches

STEPS = 3
"""Enough for learned tensors to change from their initial values."""


def train(session: Session) -> None:
    """Train as a user does: `STEPS` steps of an optimizer of the model's parameters.

    Args:
        session: a session over a contract net.
    """
    net = session.model
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    batches = batches_for(net)
    for step in range(STEPS):
        outputs = net(batches[step % len(batches)])
        labels = torch.arange(len(outputs), device=outputs.device) % outputs.shape[1]
        optimizer.zero_grad()
        loss = session.total_loss(functional.cross_entropy(outputs, labels))
        torch.autograd.backward(loss)
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SparsityWarning)
            session.step()


def batches_for(net: nn.Module) -> list[torch.Tensor]:
    """Return the batches of contracts in the dtype of a net.

    Args:
        net: a contract net.
    """
    dtype = next(net.parameters()).dtype
    return [batch.to(dtype) for batch in contract_batches()]
