"""The task loss of the built-in loop: what a batch gives the model, and what its output costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from torch import Tensor
from torch.nn import functional

from tersely.document.rules.loop import NO_TASK
from tersely.errors import ConfigError, Problem

OWN_LOSS = "output"
"""The loss that the model itself computes."""

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": functional.cross_entropy,
    "mse": functional.mse_loss,
    "l1": functional.l1_loss,
    "smooth_l1": functional.smooth_l1_loss,
    "bce_with_logits": functional.binary_cross_entropy_with_logits,
    "nll": functional.nll_loss,
}
"""Name -> PyTorch's function of output and targets; each is a mean."""

_ELEMENTWISE = ("mse", "l1", "smooth_l1", "bce_with_logits")
_PAIR = 2


@attrs.frozen(kw_only=True)
class TaskLoss:
    """The loss of a job's own task.

    Attributes:
        name: how the job names it.
        function: the user's own, for a name that is a reference.
        source: the job's file, for messages.
    """

    name: str
    function: Callable[..., Any] | None = None
    source: str | None = None

    def split(self, batch: Any) -> tuple[Any, Any]:
        """Return what the model is called with, and the targets; None where there are none.

        Args:
            batch: what ``data.train`` yielded.

        Raises:
            ConfigError: the batch is not of the form that the loss asks for.
        """
        if self.name in (OWN_LOSS, NO_TASK):
            return batch, None
        if not isinstance(batch, (list, tuple)) or len(batch) != _PAIR:
            raise self._wrong(
                "data.train",
                f"gave the batch {kind_of(batch)}, expected a pair (inputs, targets) for the loss "
                f"{self.name}",
                _hint_for_pair(batch),
            )
        return batch[0], batch[1]

    def of(self, output: Any, targets: Any) -> Tensor | None:
        """Return the loss of a batch, 0-dim, or None for a job without a task of its own.

        Args:
            output: what the model returned.
            targets: what `split` returned with the inputs.

        Raises:
            ConfigError: output and targets do not fit the loss, or it is not a single number.
        """
        if self.name == NO_TASK:
            return None
        if self.name == OWN_LOSS:
            return self._single(self._own(output), "the model's own loss")
        if self.function is not None:
            return self._single(self.function(output, targets), f"the loss of {self.name!r}")
        return self._compare(output, targets)

    def _own(self, output: Any) -> Any:
        is_mapping = isinstance(output, Mapping)
        loss = output.get("loss") if is_mapping else getattr(output, "loss", None)
        if loss is None:
            raise self._wrong(
                "loop.loss",
                f"the model returned {kind_of(output)}, which has no loss",
                "models of Transformers compute one when the batch has labels",
            )
        return loss

    def _compare(self, output: Any, targets: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise self._wrong(
                "loop.loss",
                f"the model returned {kind_of(output)}, and {self.name} takes a tensor",
                "write loss: output when it computes its own, or loss: 'module:callable'",
            )
        found = f"{self.name} got an output, {kind_of(output)}, and targets, {kind_of(targets)}"
        if not isinstance(targets, Tensor):
            raise self._wrong("data.train", f"{found}, expected a tensor")
        if self.name in _ELEMENTWISE and output.shape != targets.shape:
            raise self._wrong("data.train", f"{found}, expected targets of the output's shape")
        try:
            return LOSSES[self.name](output, targets)
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            raise self._wrong("data.train", f"{found}: {error}") from error

    def _single(self, value: Any, which: str) -> Tensor:
        if isinstance(value, Tensor) and value.dim() == 0:
            return value
        hint = "take its mean()" if isinstance(value, Tensor) else None
        message = f"{which} is {kind_of(value)}, expected a 0-dim tensor"
        raise self._wrong("loop.loss", message, hint)

    def _wrong(self, path: str, message: str, hint: str | None = None) -> ConfigError:
        return ConfigError([Problem(path, message, hint)], source=self.source)


def kind_of(value: object) -> str:
    """Return what a value is, as it reads in a message: "a float32 tensor of shape [2, 4]".

    Args:
        value: anything.
    """
    if value is None:
        return "nothing"
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{_with_article(dtype)} tensor of shape {list(value.shape)}"
    if isinstance(value, Mapping):
        return f"a mapping with {', '.join(map(str, value)) or 'nothing in it'}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return _with_article(type(value).__name__)


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiouAEIOU' else 'a'} {noun}"


def _hint_for_pair(batch: object) -> str | None:
    if isinstance(batch, Mapping):
        return "with loss: output the model gets the whole mapping, and returns its own loss"
    if isinstance(batch, (list, tuple)):
        return "for a model with several inputs write ((first, second), targets)"
    return "give one pair for each batch, as a DataLoader over inputs and targets does"
