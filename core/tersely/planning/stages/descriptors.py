"""The descriptor of the algorithm that a stage asks for."""

from __future__ import annotations

from tersely.document.recipe import Stage
from tersely.registry.descriptors import PrunerInfo, QuantizerInfo
from tersely.registry.registry import registry


def descriptor_of(stage: Stage) -> PrunerInfo | QuantizerInfo | None:
    """Return the descriptor of a stage's algorithm, or None for distillation.

    Raises:
        UnknownPluginError: no plugin provides the algorithm any more.
    """
    if stage.method == "pruning":
        return registry().pruners.info(stage.algorithm)
    if stage.method == "quantization":
        return registry().quantizers.info(stage.algorithm)
    return None
