"""The observers that receive the numbers of a run, and what happens when one of them fails."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import attrs

from tersely.contracts.history import HistoryObserver, Observation
from tersely.document.job import Job
from tersely.errors import ConfigError, Problem
from tersely.jobs.output.record import whole_document
from tersely.jobs.references import References, takes_job
from tersely.json_value import Json
from tersely.log import logger
from tersely.session.session import Session

Say = Callable[[str], None]


@attrs.define(kw_only=True)
class GuardedObserver:
    """One observer of a job; mutable because one that fails is left out from then on.

    A tracking server that is down does not end hours of training.

    Attributes:
        name: the reference that made it.
        observer: what the user's callable returned.
        say: says a line.
        has_failed: whether it raised.
    """

    name: str
    observer: HistoryObserver
    say: Say
    has_failed: bool = False

    def observe(self, observation: Observation) -> None:
        """Pass the numbers on, unless the observer failed before.

        Args:
            observation: the numbers.
        """
        if self.has_failed:
            return
        try:
            self.observer.observe(observation)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # foreign code, which may even call sys.exit
            self._fail(f"failed at step {observation.step} and is ignored from now on", error)

    def close(self, *, failed: bool = False) -> None:
        """Close the observer, also one that failed.

        Args:
            failed: whether the run ends with an error.
        """
        try:
            self.observer.close(failed=failed)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # see above
            self._fail("failed when it was closed", error)

    def _fail(self, when: str, error: BaseException) -> None:
        self.has_failed = True
        cause = f"{type(error).__name__}: {error}"
        logger(__name__).warning("observer_failed", observer=self.name, when=when, error=cause)
        self.say(f"  observer {self.name} {when}: {cause}")


class JobObservers:
    """The observers of a job; mutable because they are made when there is a session.

    Args:
        job: the job.
        calls: its callables.
        say: says a line.
    """

    def __init__(self, job: Job, calls: References, *, say: Say) -> None:
        self._job = job
        self._calls = calls
        self._say = say
        self._made: list[GuardedObserver] = []

    def watch(self, session: Session, *, resumed_at: int | None = None) -> None:
        """Make the observers and add them to a session.

        Args:
            session: the run's session.
            resumed_at: the step that an interrupted run is resumed from, or None for a new one.

        Raises:
            ConfigError: a callable fails, or what it returns is not an observer.
        """
        for index, wanted in enumerate(self._job.observers):
            found = self._make(index, resumed_at)
            self._made.append(GuardedObserver(name=wanted.create, observer=found, say=self._say))
        for one in self._made:
            session.add_observer(one)

    def close(self, *, failed: bool) -> None:
        """Close every observer.

        Args:
            failed: whether the run ends with an error.
        """
        for one in self._made:
            one.close(failed=failed)

    def _make(self, index: int, resumed_at: int | None) -> HistoryObserver:
        wanted = self._job.observers[index]
        create = self._calls.observers[index]
        given = {"job": self._job_without_observers()} if takes_job(create) else {}
        try:
            found = create(output=self._job.output, resumed_at=resumed_at, **given, **wanted.args)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            message = f"{wanted.create!r} failed: {type(error).__name__}: {error}"
            raise self._wrong(index, message) from error
        if not all(callable(getattr(found, name, None)) for name in ("observe", "close")):
            raise self._wrong(
                index,
                f"{wanted.create!r} returned a {type(found).__name__}, expected an object with "
                "the methods observe and close",
            )
        return found  # type: ignore[no-any-return]  # it was just looked at

    def _job_without_observers(self) -> dict[str, Json]:
        """Return the job without its observers, whose arguments may hold passwords."""
        document = whole_document(self._job)
        document.pop("observers", None)
        return document

    def _wrong(self, index: int, message: str) -> ConfigError:
        problem = Problem(f"observers[{index}].create", message)
        return ConfigError([problem], source=self._job.source)


@contextlib.contextmanager
def job_observers(job: Job, calls: References, *, say: Say) -> Iterator[JobObservers]:
    """Close the observers of a job at the end of this context.

    Args:
        job: the job.
        calls: its callables.
        say: says a line.
    """
    observers = JobObservers(job, calls, say=say)
    failed = True
    try:
        yield observers
        failed = False
    finally:
        observers.close(failed=failed)
