"""Stages whose period has not begun: what a call needs to know of them (rule O4)."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from tersely.document.recipe import Shrink, Stage
from tersely.errors import SessionError


def waiting_stages(stages: Iterable[Stage], steps: int) -> list[Stage]:
    """Return the stages whose period has not begun.

    Args:
        stages: the recipe's stages.
        steps: optimizer steps so far.
    """
    return [stage for stage in stages if not stage.has_begun(steps)]


def task_loss_weight(stages: Iterable[Stage], steps: int) -> float:
    """Return the weight of the user's own loss: what an active stage states, otherwise 1.

    Stages that are active at the same time do not contradict each other (rule D2.3).

    Args:
        stages: the recipe's stages.
        steps: optimizer steps so far.
    """
    for stage in stages:
        if stage.task_loss_weight is not None and stage.is_running(steps):
            return stage.task_loss_weight
    return 1.0


def need_all_begun(stages: Sequence[Stage], steps: int, call: str) -> None:
    """Refuse a call that would leave out stages that have not begun.

    Args:
        stages: the recipe's stages.
        steps: optimizer steps so far.
        call: the method that was called.

    Raises:
        SessionError: pruning or quantization has not begun.
    """
    for stage in waiting_stages(stages, steps):
        if stage.method != "distillation":
            raise SessionError(
                f"{call}() comes at step {steps}, and {stage.path} begins at step {stage.begin}; "
                "train on until then, or end an earlier period sooner by its 'until'",
                path=stage.path,
                algorithm=stage.algorithm,
            )


def need_begun_to_hand_over(learning: Sequence[Stage], steps: int) -> None:
    """Refuse to hand over what is learned while a part of it does not exist.

    Args:
        learning: the stages that learn.
        steps: optimizer steps so far.

    Raises:
        SessionError: one of them has not begun.
    """
    for stage in waiting_stages(learning, steps):
        raise SessionError(
            f"parameters() comes at step {steps}, and what {stage.path} learns is made when it "
            f"begins, at step {stage.begin}; leave what is learned to session.step(), or call "
            "session.parameters() from that step on",
            path=stage.path,
            algorithm=stage.algorithm,
        )


def need_no_stage_to_end(stages: Iterable[Stage], steps: int, *, state: int) -> None:
    """Refuse a state from before the beginning of a stage that has begun.

    Args:
        stages: the recipe's stages.
        steps: optimizer steps so far.
        state: optimizer steps when the state was taken.

    Raises:
        SessionError: a stage has begun since.
    """
    for stage in stages:
        if stage.has_begun(steps) and not stage.has_begun(state):
            raise SessionError(
                f"the state is that of step {state}, and {stage.path} has begun in this "
                "session; restore it in a session that was just attached",
                path=stage.path,
                algorithm=stage.algorithm,
            )


def stages_to_shrink(stages: Sequence[Stage], done: Container[str]) -> list[Stage]:
    """Return the stages that end with shrink and have not shrunk yet.

    Args:
        stages: the recipe's stages.
        done: paths of those that have.
    """
    return [one for one in stages if one.shrink is not None and one.path not in done]


def stages_due_to_shrink(
    stages: Sequence[Stage], steps: int, *, done: Container[str], growing: Iterable[int]
) -> list[Stage]:
    """Return those of them that have ended.

    A stage that lasts to the end of training ends, in this sense, when the sparsity of all stages
    that have begun is reached, so that training continues with the small model.

    Args:
        stages: the recipe's stages.
        steps: optimizer steps so far.
        done: paths of those that have shrunk.
        growing: indices of the stages whose sparsity still grows.
    """
    is_grown = not any(stages[number].has_begun(steps) for number in growing)
    return [
        one
        for one in stages_to_shrink(stages, done)
        if one.has_begun(steps) and (is_grown if one.end is None else steps >= one.end)
    ]


def need_shrunk(stages: Sequence[Stage], steps: int, *, done: Container[str], call: str) -> None:
    """Refuse a call that would leave in the model what a stage removes when it ends.

    Args:
        stages: the recipe's stages.
        steps: optimizer steps so far.
        done: paths of the stages that have shrunk.
        call: the method that was called.

    Raises:
        SessionError: a stage has still to shrink.
    """
    for stage in stages_to_shrink(stages, done):
        end = "" if stage.end is None else f", at step {stage.end}"
        raise SessionError(
            f"{call}() comes at step {steps}, and {stage.path} ends with shrink{end}, which was "
            "not done; call session.shrink(example_inputs, optimizer=optimizer), or step with "
            "session.step(optimizer=optimizer) in a session that was attached with "
            "example_inputs=...",
            path=stage.path,
            algorithm=stage.algorithm,
        )


def shrink_options(stages: Sequence[Stage]) -> Shrink:
    """Return how stages that end together shrink; the document makes them agree.

    Args:
        stages: stages that end with shrinking.
    """
    return next((one.shrink for one in stages if one.shrink is not None), Shrink())
