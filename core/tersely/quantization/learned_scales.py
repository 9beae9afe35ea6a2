"""Learned scales that come from a checkpoint, or are moved by several processes."""

from __future__ import annotations

from tersely.engine.processes import is_equal_everywhere
from tersely.errors import SessionError
from tersely.instrument.names import learned_buffer
from tersely.quantization.placing import learned_of
from tersely.quantization.run import QuantizationRun


def adopt_learned(run: QuantizationRun) -> None:
    """Let the session move what a checkpoint brought, the same tensor for every holder.

    Args:
        run: a stage; nothing happens where it learns nothing or has an optimizer.
    """
    if not run.is_learning or run.optimizer is not None:
        return
    leaves = []
    for handle in (*run.parameters, *run.activations):
        for name, leaf in learned_of(handle).items():
            leaves.append(leaf)
            for module, attribute in handle.others:
                buffer = learned_buffer(attribute, name)
                twin, module._buffers[buffer] = module._buffers[buffer], leaf
                if twin is not None and twin is not leaf and twin.grad is not None:
                    leaf.grad = twin.grad if leaf.grad is None else leaf.grad + twin.grad
    if leaves:
        run.make_optimizer(leaves)


def need_the_same_everywhere(run: QuantizationRun) -> None:
    """Refuse what the user's optimizer moved apart; the session averages by itself.

    Args:
        run: a stage that learns.

    Raises:
        SessionError: the processes have moved what is learned apart.
    """
    learned = {
        handle: list(learned_of(handle).values()) for handle in (*run.parameters, *run.activations)
    }
    if not is_equal_everywhere([one for leaves in learned.values() for one in leaves]):
        first = next(handle for handle, leaves in learned.items() if leaves).plan
        raise SessionError(
            f"what {first.algorithm} learned of {first.name} and others differs between the "
            f"processes: your optimizer moves session.parameters(), whose gradients "
            f"DistributedDataParallel does not average; average them before optimizer.step(), "
            f"or leave them to session.step()"
        )
