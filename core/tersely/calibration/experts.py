"""Observing experts that share their parameters: each by the rows that its matrix multiplies."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor, nn

from tersely.calibration.expert_rows import Products
from tersely.contracts.experts import of_expert
from tersely.engine.observation.padding import kept_positions
from tersely.engine.observation.sums import put_of_expert
from tersely.engine.observation.watch import Watch
from tersely.errors import CalibrationError
from tersely.instrument.modules.classes import instruments_of, replace_instruments
from tersely.instrument.names import TAP, state_buffer

Observe = Callable[[Watch, Tensor, Callable[[], Tensor], Any], Mapping[str, Tensor]]
"""Called with who observes, rows, what makes their products with one expert's matrix, and its
target; returns what they add to the sums."""


@contextlib.contextmanager
def watch_experts(watches: Sequence[Watch], observe: Observe) -> Iterator[None]:
    """Let algorithms see the rows of each expert inside the block.

    The user's own forward runs, whichever way it picks rows: expert by expert, grouped or batched.

    Args:
        watches: who observes which parameter that stacks one matrix for each expert.
        observe: lets one of them see rows.

    Raises:
        CalibrationError: a module was called with rows, and its products cannot be seen.
    """
    by_module: dict[nn.Module, list[Watch]] = {}
    for watch in watches:
        by_module.setdefault(watch.bound.module, []).append(watch)
    calls = [_Calls(module, members, observe) for module, members in by_module.items()]
    with contextlib.ExitStack() as stack:
        for one in calls:
            stack.enter_context(one.listening())
        yield
    for one in calls:
        one.need_products()


@attrs.frozen(eq=False)
class _Read:
    """The last step on a parameter: tells the call under way which tensor the module reads."""

    place: ClassVar[int] = TAP

    calls: _Calls
    name: str
    input_dim: int

    def __call__(self, module: nn.Module, value: Tensor) -> Tensor:
        """Return the value itself."""
        if self.calls.products is not None:
            self.calls.products.add(self.name, value, input_dim=self.input_dim)
            self.calls.values[self.name] = value
        return value


@attrs.define(eq=False)
class _Calls:
    """The calls of one module; mutable because it knows which one is under way.

    Attributes:
        module: experts that share their parameters.
        watches: who observes them.
        observe: lets one of them see rows.
        products: sees the products of the call under way.
        values: parameter -> its values as the call under way reads them.
        kept: which rows of the call under way are data; None when all of them are.
        lead: their leading shape: (rows,), or (batch, positions).
        is_caching: whether autocast keeps what it casts, which would hide the next read.
        has_rows: whether a call had rows.
    """

    module: nn.Module
    watches: Sequence[Watch]
    observe: Observe
    products: Products | None = None
    values: dict[str, Tensor] = attrs.field(factory=dict)
    kept: Tensor | None = None
    lead: tuple[int, ...] = ()
    is_caching: bool = False
    has_rows: bool = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Observe the module inside the block."""
        before = instruments_of(self.module)
        reads = {
            watch.bound.plan.target: _Read(
                self, watch.bound.plan.target, watch.bound.plan.input_dim
            )
            for watch in self.watches
        }
        parameters = {
            name: (*steps, reads[name]) if name in reads else steps
            for name, steps in before.parameters.items()
        }
        replace_instruments(self.module, attrs.evolve(before, parameters=parameters))
        hooks = (
            self.module.register_forward_pre_hook(self._begin, with_kwargs=True),
            self.module.register_forward_hook(self._end, always_call=True),
        )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            replace_instruments(self.module, before)

    def need_products(self) -> None:
        """Refuse a module whose products were not seen although it had rows."""
        missing = [watch for watch in self.watches if not watch.sums]
        if self.has_rows and missing:
            plan = missing[0].bound.plan
            raise CalibrationError(
                f"{plan.name}: {plan.algorithm} observes which rows each expert multiplies, and "
                f"{plan.module_type} computes in a way that does not show them, such as a kernel "
                "of its own; calibrate with plain matrix products (Transformers: "
                "model.set_experts_implementation('eager')), or leave it out",
                **plan.place,
            )

    def _begin(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        for watch in self.watches:
            watch.is_called = True
        first = next((one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)), None)
        self.kept = None
        if first is not None:
            kept = kept_positions(first, is_channels_first=False)
            if kept is not None:
                self.kept, self.lead = kept.flatten(), tuple(first.shape[: max(first.ndim - 1, 1)])
                args = tuple(self._data(one) for one in args)
                kwargs = {key: self._data(one) for key, one in kwargs.items()}
            is_empty = not first.numel() or (kept is not None and not bool(kept.any()))
            self.has_rows = self.has_rows or not is_empty
        self.is_caching = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)
        self.products = Products(self._see)
        self.products.begin()
        return args, kwargs

    def _end(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        products, self.products = self.products, None
        self.values.clear()
        if products is not None:
            products.end()
            torch.set_autocast_cache_enabled(self.is_caching)
        if isinstance(output, (list, tuple)):
            return type(output)(self._restored(one) for one in output)
        return self._restored(output)

    def _data(self, value: Any) -> Any:
        """Return the rows of an argument that are data; other arguments as they are."""
        if self.kept is None or not isinstance(value, Tensor) or not value.ndim:
            return value
        if len(value) == len(self.kept):
            return value[self.kept]
        if len(self.lead) > 1 and value.shape[: len(self.lead)] == self.lead:
            return value.flatten(0, len(self.lead) - 1)[self.kept][None]
        return value

    def _restored(self, value: Any) -> Any:
        """Put the rows of a result back to their places among padding, whose results are zero."""
        if self.kept is None or not isinstance(value, Tensor) or not value.ndim:
            return value
        rows = int(self.kept.sum())
        is_led = len(self.lead) > 1 and value.shape[: len(self.lead)] == (1, rows)
        if not is_led and len(value) != rows:
            return value
        found = value[0] if is_led else value
        whole = value.new_zeros(len(self.kept), *found.shape[1:])
        whole[self.kept] = found
        return whole.reshape(*self.lead, *found.shape[1:]) if is_led else whole

    def _see(self, name: str, expert: int, rows: Tensor) -> None:
        for watch in self.watches:
            if watch.bound.plan.target == name:
                outputs = partial(self._outputs, watch, expert, rows)
                given = self._undivided(name, rows)
                part = self.observe(watch, given, outputs, of_expert(watch.target, expert))
                _add(watch, expert, part)

    def _undivided(self, name: str, rows: Tensor) -> Tensor:
        """Return rows as the module got them, where factors that all experts share divide them."""
        factors = self.module._buffers.get(state_buffer(name, "input_scale"))
        return rows if factors is None or factors.ndim > 1 else rows * factors.to(rows)

    def _outputs(self, watch: Watch, expert: int, rows: Tensor) -> Tensor:
        """Return what a linear layer with one expert's matrix, and its bias, makes of rows."""
        name = watch.bound.plan.target
        matrix = self.values[name][expert]
        matrix = matrix if watch.bound.plan.input_dim == 1 else matrix.T
        made = rows[rows.any(1)].to(matrix.dtype) @ matrix  # unused slots of an expert are zero
        bias = getattr(self.module, f"{name}_bias", None)
        return made + bias[expert] if isinstance(bias, Tensor) else made


def _add(watch: Watch, expert: int, part: Mapping[str, Tensor]) -> None:
    count = (watch.bound.plan.shape or (0,))[0]
    for name, tensor in part.items():
        if name not in watch.sums:
            watch.sums[name] = tensor.new_zeros(count, *tensor.shape)
        elif watch.sums[name].shape[1:] != tensor.shape:
            raise ValueError(
                f"{name} changes its shape from {list(watch.sums[name].shape[1:])} to "
                f"{list(tensor.shape)}"
            )
    detached = {name: tensor.detach() for name, tensor in part.items()}
    put_of_expert(watch.sums, expert, detached, watch.algorithm)
