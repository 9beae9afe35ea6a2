"""That all processes have learned the same."""

from __future__ import annotations

from laconic.errors import SessionError
from laconic.session.processes import is_equal_everywhere
from laconic.session.quantization.placing import learned_of
from laconic.session.quantization.runs import QuantizationRun


def need_agreement(run: QuantizationRun) -> None:
    """Refuse what the processes have moved apart; the session averages, a user's loop may not.

    Args:
        run: the stage.

    Raises:
        SessionError: what is learned differs; raised in every process.
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
