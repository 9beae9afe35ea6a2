"""The closed sets of words for methods, kinds of target and needs; imports no torch."""

from __future__ import annotations

from typing import Literal

TargetKind = Literal["parameter", "buffer", "input", "output"]
Method = Literal["pruning", "quantization", "distillation"]

KINDS: tuple[TargetKind, ...] = ("parameter", "buffer", "input", "output")
METHODS: tuple[Method, ...] = ("pruning", "quantization", "distillation")

Needs = Literal["nothing", "activations", "gradients", "training", "teacher"]
"""What must happen before an algorithm can decide, in ascending order."""

NEEDS: tuple[Needs, ...] = ("nothing", "activations", "gradients", "training", "teacher")
