"""Learned scales that come from a checkpoint."""

from __future__ import annotations

from tersely.instrument.names import learned_buffer
from tersely.quantization.run import QuantizationRun, learned_of


def adopt_learned(run: QuantizationRun) -> None:
    """Let the session move what a checkpoint brought, the same tensor for every holder.

    Args:
        run: a stage; nothing happens where it learns nothing or has an optimizer.
    """
    if not run.is_learning or run.optimizer is not None:
        return
    has_learned = False
    for bound in (*run.parameters, *run.activations):
        for name, leaf in learned_of(bound).items():
            has_learned = True
            for module, attribute in bound.others:
                buffer = learned_buffer(attribute, name)
                twin, module._buffers[buffer] = module._buffers[buffer], leaf
                if twin is not None and twin is not leaf and twin.grad is not None:
                    leaf.grad = twin.grad if leaf.grad is None else leaf.grad + twin.grad
    if has_learned:
        run.make_optimizer()
