"""Operators of a graph as calls: the nodes that they read, and what they return for values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Node


def arguments(node: Node) -> list[Node]:
    """Return the nodes among an operator's arguments, in order, those in lists included.

    Args:
        node: the operator.
    """
    found: list[Node] = []

    def note(one: Node) -> Node:
        found.append(one)
        return one

    torch.fx.node.map_arg((node.args, node.kwargs), note)
    return found


def call(node: Node, replaced: Mapping[Node, Any]) -> Any:
    """Run a node's operator with values in place of nodes, on the CPU, where the walk works.

    Args:
        node: the operator.
        replaced: node -> its value.
    """
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: replaced[n])
    here = [torch.device("cpu") if isinstance(one, torch.device) else one for one in args]
    kwargs = {k: v for k, v in kwargs.items() if k not in ("memory_format", "device", "pin_memory")}
    return node.target(*here, **kwargs)  # type: ignore[operator]
