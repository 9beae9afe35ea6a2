"""The closed sets of words for methods and for kinds of target; needs no torch."""

from __future__ import annotations

from typing import Literal

TargetKind = Literal["parameter", "buffer", "input", "output"]
Method = Literal["pruning", "quantization", "distillation"]
