"""The contract of sparsity schedules."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar

import attrs

from tersely.json_value import Json
from tersely.testing.contract import Contract, Kind, expect, require
from tersely.testing.untouched.random_state import untouched_random_state

_PROGRESS = sorted({Fraction(step, steps) for steps in (20, 97) for step in range(steps + 1)})


@attrs.define(eq=False)
class ScheduleContract(Contract):
    """What every schedule must meet."""

    kind: ClassVar[Kind] = "schedules"

    def factor(self, progress: float | Fraction) -> float | Fraction:
        """Return the due share of the configured sparsity.

        Args:
            progress: the share of the schedule that has passed, in [0, 1].
        """
        found = self.catalog[self.name](progress, **self.arguments)
        is_number = isinstance(found, int | float | Fraction) and not isinstance(found, bool)
        expect(is_number, f"at {float(progress)}: expected a number, got {type(found).__name__}")
        return found  # type: ignore[return-value]  # checked above

    def make_example(self) -> None:
        """Ask for a share with the options: a schedule has no object of its own."""
        self.factor(0.5)

    def use(self) -> None:
        """Ask for the shares of a schedule."""
        for progress in _PROGRESS:
            self.factor(progress)

    def check_determinism(self) -> None:
        """The same progress gives the same share and leaves the global random state unchanged."""
        with untouched_random_state():
            first = [self.factor(progress) for progress in _PROGRESS]
        again = [self.factor(progress) for progress in reversed(_PROGRESS)]
        expect(first == again[::-1], "two calls with the same progress return different shares")

    def check_range(self) -> None:
        """Every share is a number in [0, 1]."""
        for progress in _PROGRESS:
            for spelled in (progress, float(progress)):
                found = self.factor(spelled)
                expect(
                    0 <= found <= 1,
                    f"at {float(progress)}: the share is {float(found)}, expected one in [0, 1]",
                )

    def check_end(self) -> None:
        """At the end exactly the configured sparsity is due."""
        for end in (1, 1.0, Fraction(1)):
            found = self.factor(end)
            expect(found == 1, f"at the end the share is {float(found)!r}, expected 1")

    def check_growth(self) -> None:
        """The share never decreases."""
        shares = [self.factor(progress) for progress in _PROGRESS]
        for progress, before, after in zip(_PROGRESS[1:], shares, shares[1:], strict=False):
            expect(
                after >= before,
                f"at {float(progress)}: the share falls from {float(before)} to {float(after)}",
            )


def check_schedule(name: str, *, options: Mapping[str, Json] | None = None) -> None:
    """Run the whole contract of a schedule.

    Args:
        name: its name in the registry.
        options: options to call it with; by default the first example of its options schema.

    Raises:
        ContractError: lists every check that failed.
        PluginError: no plugin provides the name.
    """
    require(ScheduleContract(name, options or {}))
