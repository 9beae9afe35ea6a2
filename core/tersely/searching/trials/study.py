"""The trials of a search in Optuna's storage, which several processes may share."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from tersely.errors import SessionFileError
from tersely.extras import extra
from tersely.json_value import Json
from tersely.searching.trials.claims import Claim, Claims
from tersely.searching.trials.sampling import Setting, draw, silent
from tersely.storage.json_file import body_digest

with extra("search", purpose="a search"):
    import optuna

_NAME = "tersely-search"
_ROW, _SUBJECT = "row: ", "subject"

_PAUSES = (0.1, 0.2, 0.4, 0.8)
"""Seconds to wait before each further attempt to open the storage."""

_ADVICE = "give another output or storage, or remove this one"


@attrs.frozen(kw_only=True)
class Tried:
    """A finished trial.

    Attributes:
        setting: the setting that was tried.
        kind: how it was proposed: ``uniform``, ``greedy``, ``step`` or ``sampled``.
        value: the measured quality.
        drop: how much worse than the dense model, in percent.
        cost: the cost as a share of the dense model's, or None if the drop was too large.
        problem: why the setting could not be built, in which case its drop is infinite; or empty.
    """

    setting: Setting
    kind: str
    value: float
    drop: float
    cost: float | None
    problem: str = ""


class TrialStore:
    """Stored trials and measurements; a class, because it represents a database.

    A trial is stored once it is finished, so a crash loses only the trial under way. The sampler
    depends on the seed and the finished trials alone. A trial under way is stored as running:

        trial       of Optuna, with                           meaning
        ----------  ----------------------------------------  ----------------------------------
        running     its setting, and the process that has it  claimed, while that process lives
        complete    its setting, what it lost and costs       tried
        failed      its setting                               a claim that was given back

    Args:
        storage: a URL that Optuna takes, such as ``sqlite:///study.db``.
        names: the names of the units.
        levels: for each unit, its number of levels besides dense.
        subject: name of each part of what is searched -> its digest.
        seed: the seed of the sampler.

    Raises:
        SessionFileError: the storage cannot be opened, holds a search for something else or
            does not say for what, or is damaged; any method raises it for a trial or row whose
            digest does not fit.
    """

    def __init__(
        self,
        storage: str,
        *,
        names: Sequence[str],
        levels: Sequence[int],
        subject: Mapping[str, str],
        seed: int,
    ) -> None:
        self._names = tuple(names)
        self._ranges = {
            name: optuna.distributions.IntDistribution(0, count)
            for name, count in zip(names, levels, strict=True)
        }
        self._seed, self._storage = seed, _shown(storage)
        self._study = self._opened(storage)
        self._claims = Claims(self._study, self._ranges)
        self._check(subject)

    def _opened(self, storage: str) -> Any:
        """Open the study, repeatedly, since another process may be creating the tables."""
        pauses = list(_PAUSES)
        while True:
            try:
                with silent():
                    return optuna.create_study(
                        storage=storage, study_name=_NAME, load_if_exists=True, direction="minimize"
                    )
            except Exception as error:  # database drivers raise errors of any class
                if not pauses:
                    raise SessionFileError(
                        f"the storage {self._storage} cannot be opened: {_first_line(error)}; give "
                        "a URL that Optuna takes, such as sqlite:///study.db, and install its "
                        f"driver; if it is damaged, {_ADVICE}",
                        path=self._storage,
                    ) from error
            time.sleep(pauses.pop(0))

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn any error of Optuna and its database into a SessionFileError."""
        try:
            yield
        except SessionFileError:
            raise
        except Exception as error:  # foreign code: a damaged database fails in any way
            raise SessionFileError(
                f"{self._storage} cannot be read or written ({_first_line(error)}); if it is "
                f"damaged, {_ADVICE}",
                path=self._storage,
            ) from error

    def _attributes(self) -> dict[str, Any]:
        with self._asking():
            return dict(self._study.user_attrs)

    def _set(self, key: str, value: Json) -> None:
        with self._asking():
            self._study.set_user_attr(key, value)

    def _need_whole(self, data: Mapping[str, Json]) -> None:
        body = {key: value for key, value in data.items() if key != "sha256"}
        if data.get("sha256") != body_digest(body):
            raise ValueError("a digest does not match its content")

    def _check(self, subject: Mapping[str, str]) -> None:
        # Trials are read first: a process that adds one has stored its subject before.
        with self._asking():
            has_trials = bool(self._study.get_trials(deepcopy=False))
        attributes = self._attributes()
        if _SUBJECT not in attributes:
            if has_trials or attributes:
                raise SessionFileError(
                    f"{self._storage} does not state what its trials and measurements belong to, "
                    f"which may be something else; {_ADVICE}",
                    path=self._storage,
                )
            self._set(_SUBJECT, dict(subject))
            attributes = self._attributes()  # another process may have stored another subject
        known = attributes[_SUBJECT]
        if not isinstance(known, Mapping):
            raise SessionFileError(
                f"{self._storage} is damaged where it states what it belongs to; {_ADVICE}",
                path=self._storage,
            )
        changed = [name for name in subject if known.get(name) != subject[name]]
        if changed:
            raise SessionFileError(
                f"{self._storage} holds a search for something else: {', '.join(changed)} "
                "changed; give another output or storage, or undo the change",
                path=self._storage,
            )

    def row(self, key: str) -> Mapping[str, Json] | None:
        """Return a stored measurement other than a trial, or None.

        Args:
            key: what identifies it, such as the unit and the level.
        """
        found = self._attributes().get(_ROW + key)
        return None if found is None else self._row(key, found)

    def _row(self, key: str, found: Json) -> dict[str, Json]:
        with self._asking():
            self._need_whole({**found, "key": key})
        return {name: value for name, value in found.items() if name != "sha256"}

    def add_row(self, key: str, row: Mapping[str, Json]) -> None:
        """Store a measurement other than a trial, such as that of one unit at one level alone.

        Args:
            key: what identifies it, such as the unit and the level.
            row: plain data.
        """
        self._set(_ROW + key, {**row, "sha256": body_digest({**row, "key": key})})

    def rows(self, beginning: str) -> dict[str, Mapping[str, Json]]:
        """Return the rows whose keys have a prefix: rest of the key -> row.

        Args:
            beginning: the prefix.
        """
        known = self._attributes()
        keys = [key.removeprefix(_ROW) for key in known if key.startswith(_ROW + beginning)]
        return {key.removeprefix(beginning): self._row(key, known[_ROW + key]) for key in keys}

    def tried(self) -> tuple[Tried, ...]:
        """Return the finished trials of all processes, in order."""
        return tuple(self._read(trial) for trial in self._finished())

    def _read(self, trial: Any) -> Tried:
        known = trial.user_attrs
        return Tried(
            setting=tuple(trial.params[name] for name in self._names),
            kind=known["kind"],
            value=float(known["value"]),
            drop=float(known["drop"]),
            cost=known["cost"],
            problem=known.get("problem", ""),
        )

    def add(self, tried: Tried, *, score: float) -> None:
        """Store a finished trial.

        Args:
            tried: the trial.
            score: the value that the sampler minimizes.
        """
        known: dict[str, Json] = {
            "kind": tried.kind,
            "value": repr(tried.value),
            "drop": repr(tried.drop),
            "cost": tried.cost,
            "problem": tried.problem,
        }
        digest = body_digest({**known, "setting": list(tried.setting), "score": score})
        with self._asking():
            self._study.add_trial(
                optuna.trial.create_trial(
                    params=dict(zip(self._names, tried.setting, strict=True)),
                    distributions=self._ranges,
                    value=score,
                    user_attrs={**known, "sha256": digest},
                )
            )

    @contextlib.contextmanager
    def claim(self, setting: Setting, *, most: int) -> Iterator[bool]:
        """Claim a setting while the context lasts, if it is still free.

        Yields whether it was: not if another process has tried or claimed it first, or if it would
        be one trial too many.

        Args:
            setting: the setting.
            most: the total number of trials, including those of other processes.
        """
        with self._asking():
            number = self._claims.add(setting)
        try:
            # Claims are read first, so that a trial that ends meanwhile is among the finished ones.
            before = {one.setting for one in self.claimed() if one.number < number}
            taken = before | {one.setting for one in self.tried()}
            yield setting not in taken and len(taken) < most
        finally:
            with self._asking():
                self._claims.give_back(number)

    def claimed(self) -> tuple[Claim, ...]:
        """Return what other processes are trying now."""
        with self._asking():
            return self._claims.of_others()

    def sample(self, taken: frozenset[Setting]) -> Setting | None:
        """Draw a setting that Optuna's sampler expects much of, or None where all are taken.

        Args:
            taken: settings that have been tried or are being tried.
        """
        return draw(self._finished(), self._ranges, seed=self._seed, taken=taken)

    def _finished(self) -> list[Any]:
        complete = (optuna.trial.TrialState.COMPLETE,)
        with self._asking():
            found = list(self._study.get_trials(deepcopy=False, states=complete))
            for trial in found:
                setting = [trial.params[name] for name in self._names]
                self._need_whole({**trial.user_attrs, "setting": setting, "score": trial.value})
                if trial.distributions != self._ranges:
                    raise ValueError("a trial has other levels than the search")
        return found


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [repr(error)])[0]


def _shown(storage: str) -> str:
    """Return a URL without its password."""
    return re.sub(r"://([^:/@]*):[^/]*@", r"://\1:***@", storage)
