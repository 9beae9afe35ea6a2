"""Claims: settings that processes of a shared search are trying, as running Optuna trials."""

from __future__ import annotations

import os
import socket
import sys
import uuid
from collections.abc import Mapping
from typing import Any

import attrs

from tersely.extras import extra
from tersely.json_value import Json
from tersely.searching.trials.sampling import Setting
from tersely.storage.processes import is_running, start_of

with extra("search", purpose="a search"):
    import optuna

_PROCESS, _TOKEN = "process", "token"


@attrs.frozen(kw_only=True)
class Claim:
    """A setting that a process is trying, or was trying when it ended.

    Attributes:
        number: its number among all trials; of two claims, the one with the lower number was first.
        setting: the setting.
        host: the machine of the process.
        pid: the number of the process.
        start: when the process began, to tell it from a later one with the same number; or empty.
    """

    number: int
    setting: Setting
    host: str
    pid: int
    start: str

    @property
    def is_seen(self) -> bool:
        """Whether this machine can see when the process ends."""
        return self.host == socket.gethostname() and sys.platform != "win32"

    @property
    def is_alive(self) -> bool:
        """Whether the process may still be running."""
        if not self.is_seen:
            return True
        return is_running(self.pid) and self.start in ("", start_of(self.pid))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Claims:
    """The claims of a search; a class, because it represents part of a database.

    Args:
        study: Optuna's study.
        ranges: for each unit, the distribution of the indices of its levels.
    """

    def __init__(self, study: Any, ranges: Mapping[str, Any]) -> None:
        self._study = study
        self._ranges = ranges
        self._token = uuid.uuid4().hex

    def add(self, setting: Setting) -> int:
        """Claim a setting, and return the number of the claim.

        The database numbers claims in the order in which they become visible, so of two processes
        that look for other claims after their own, at least one sees the other's.

        Args:
            setting: the setting.
        """
        self._study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.RUNNING,
                params=dict(zip(self._ranges, setting, strict=True)),
                distributions=dict(self._ranges),
                user_attrs={_PROCESS: _ourselves(), _TOKEN: self._token},
            )
        )
        return next(int(one.number) for one in self._running() if self._is_own(one))

    def give_back(self, number: int) -> None:
        """Withdraw a claim.

        Args:
            number: what `add` returned.
        """
        self._study.tell(number, state=optuna.trial.TrialState.FAIL)

    def of_others(self) -> tuple[Claim, ...]:
        """Return the claims of other processes that may still be running.

        Raises:
            LookupError: the stored data is incomplete.
            ValueError: a stored value is not a number.
        """
        claims = [self._read(one) for one in self._running() if not self._is_own(one)]
        return tuple(one for one in claims if one.is_alive)

    def _running(self) -> list[Any]:
        running = (optuna.trial.TrialState.RUNNING,)
        return list(self._study.get_trials(deepcopy=False, states=running))

    def _is_own(self, trial: Any) -> bool:
        return bool(trial.user_attrs.get(_TOKEN) == self._token)

    def _read(self, trial: Any) -> Claim:
        setting = tuple(trial.params[name] for name in self._ranges)
        process = trial.user_attrs[_PROCESS]
        return Claim(
            number=trial.number, setting=setting, **{**process, "pid": int(process["pid"])}
        )


def _ourselves() -> dict[str, Json]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "start": start_of(os.getpid())}
