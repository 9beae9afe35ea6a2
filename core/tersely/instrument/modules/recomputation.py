"""Forwards that run inside backward, as activation checkpointing makes them."""

from __future__ import annotations

import torch


def is_recomputing() -> bool:
    """Tell whether this forward runs inside a backward pass (rules D4.2 and Q5.3).

    Activation checkpointing, reentrant or not, computes activations a second time while gradients
    are computed. What was observed in the first forward must not be observed again. A compiled
    forward is never run this way: its recomputation is part of its backward graph.
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._current_graph_task_id() != -1
