"""The user's own callables, named as ``module:callable`` and imported from the job's folder."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs

from tersely.document.job import Job, ObserverReference
from tersely.errors import ConfigError, Problem
from tersely.text import did_you_mean

Call = Callable[..., Any]


@attrs.frozen(kw_only=True)
class References:
    """The objects that a job's references name.

    Attributes:
        model: builds the model.
        teacher: builds the teacher, or None.
        calibration: returns batches, or None.
        example: returns what the model is called with, or None.
        evaluate: takes the model and returns a number or a mapping of numbers, or None.
        train: the user's loop, takes the model and the session, or None.
        batches: returns the batches of one epoch for the built-in loop, or None.
        loss: takes output and targets and returns the task loss of the built-in loop, or None.
        observers: make the observers, which receive the numbers of the run.
    """

    model: Call
    teacher: Call | None = None
    calibration: Call | None = None
    example: Call | None = None
    evaluate: Call | None = None
    train: Call | None = None
    batches: Call | None = None
    loss: Call | None = None
    observers: tuple[Call, ...] = ()


def load_references(job: Job) -> References:
    """Import everything a job names; call it inside `job_imports`.

    Args:
        job: a validated job.

    Raises:
        ConfigError: a reference cannot be imported or cannot be called as the job would; every
            problem at once.
    """
    problems: list[Problem] = []
    loss = job.loop.loss if job.loop is not None and ":" in job.loop.loss else None
    wanted = {
        "model": ("model", job.model, (), job.model_args),
        "teacher": ("teacher", job.teacher, (), job.teacher_args),
        "calibration": ("data.calibration", job.data.calibration, (), {}),
        "example": ("data.example", job.data.example, (), {}),
        "evaluate": ("data.evaluate", job.data.evaluate, ("model",), {}),
        "train": ("train", job.train, ("model", "session"), {}),
        "batches": ("data.train", job.data.train, (), {}),
        "loss": ("loop.loss", loss, ("output", "targets"), {}),
    }
    found: dict[str, Call | None] = {}
    for name, (path, reference, positional, named) in wanted.items():
        if reference is None:
            continue
        result = find_callable(reference, path=path, folder=job.directory)
        if isinstance(result, Problem):
            problems.append(result)
            continue
        found[name] = result
        if name == "loss" and inspect.isclass(result):
            hint = "name a function, or a variable that holds an instance"
            message = f"{reference!r} is a class, expected a function of output and targets"
            problems.append(Problem(path, message, hint))
            continue
        place = f"{path}_args" if named else path
        problem = _misfit(result, place, reference, positional=positional, named=named)
        if problem:
            problems.append(problem)
    observers = []
    for index, wanted_observer in enumerate(job.observers):
        made = _find_observer(wanted_observer, f"observers[{index}]", folder=job.directory)
        if isinstance(made, Problem):
            problems.append(made)
        else:
            observers.append(made)
    if problems:
        raise ConfigError(problems, source=job.source)
    return References(observers=tuple(observers), **found)  # type: ignore[arg-type]  # has a model


def load_reference(reference: str, *, path: str, folder: Path) -> Call:
    """Import one callable; call it inside `job_imports`.

    Args:
        reference: ``module:callable``.
        path: the place of the reference, for messages.
        folder: the folder its module is looked for first.

    Raises:
        ConfigError: it cannot be imported or called.
    """
    result = find_callable(reference, path=path, folder=folder)
    if isinstance(result, Problem):
        raise ConfigError([result])
    return result


def find_callable(reference: str, *, path: str, folder: Path) -> Call | Problem:
    """Return the callable that a reference names, or what is wrong with the reference.

    Args:
        reference: ``module:callable``; the callable may be dotted, as in ``Class.method``.
        path: the place of the reference, for messages.
        folder: the folder its module is looked for first.
    """
    name, colon, attribute = reference.partition(":")
    if not (colon and name and attribute) or ":" in attribute:
        return Problem(
            path, f"found {reference!r}, expected 'module:callable' such as 'my_models:build'"
        )
    module = _import(name, path=path, folder=folder)
    if isinstance(module, Problem):
        return module
    value: object = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            public = [known for known in vars(value) if not known.startswith("_")]
            hint = did_you_mean(part, public)
            return Problem(path, f"{name!r} has no attribute {attribute!r}", hint)
        value = getattr(value, part)
    if not callable(value):
        return Problem(path, f"{reference!r} is a {type(value).__name__}, expected a callable")
    return value


@contextlib.contextmanager
def job_imports(folder: Path) -> Iterator[None]:
    """Look for modules in a job's folder first, for as long as the job runs.

    Modules of the same names from another job are put aside and restored at the end.

    Args:
        folder: the job's folder.
    """
    aside = {name: sys.modules.pop(name) for name in _clashing(folder)}
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))
        if aside:
            tops = {name.partition(".")[0] for name in aside}
            for name in [one for one in sys.modules if one.partition(".")[0] in tops]:
                del sys.modules[name]
            sys.modules.update(aside)


def _import(name: str, *, path: str, folder: Path) -> ModuleType | Problem:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            return Problem(path, f"importing {name!r} failed: {error}", "install what it needs")
        beside = sorted(file.stem for file in folder.glob("*.py"))
        hint = did_you_mean(name, beside)
        return Problem(
            path, f"there is no module {name!r} in {folder} or among the installed packages", hint
        )
    except Exception as error:  # the user's module may raise anything at all
        return Problem(path, f"importing {name!r} failed: {type(error).__name__}: {error}")


def _find_observer(wanted: ObserverReference, path: str, *, folder: Path) -> Call | Problem:
    result = find_callable(wanted.create, path=f"{path}.create", folder=folder)
    if isinstance(result, Problem):
        return result
    place = f"{path}.args" if wanted.args else f"{path}.create"
    given: dict[str, object] = {"output": folder, "resumed_at": None}
    given |= {"job": {}} if takes_job(result) else {}
    for name in given.keys() & wanted.args:
        return Problem(f"{place}.{name}", f"{name!r} is given by the job; remove it")
    named = {**given, **wanted.args}
    return _misfit(result, place, wanted.create, positional=(), named=named) or result


def takes_job(create: Call) -> bool:
    """Tell whether what makes an observer wants to know the job too.

    Args:
        create: the callable that an observer's ``create`` names.
    """
    try:
        return "job" in inspect.signature(create).parameters
    except (TypeError, ValueError):  # some builtins have no signature to look at
        return False


def _misfit(
    function: Call,
    place: str,
    reference: str,
    *,
    positional: tuple[str, ...],
    named: Mapping[str, object],
) -> Problem | None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have no signature to check
        return None
    try:
        signature.bind(*positional, **named)
    except TypeError as error:
        call = ", ".join([*positional, *(f"{name}=..." for name in named)])
        return Problem(
            place, f"{reference!r} takes {signature}, but the job calls it with ({call}): {error}"
        )
    return None


def _clashing(folder: Path) -> list[str]:
    names = {file.stem for file in folder.glob("*.py")}
    names |= {file.parent.name for file in folder.glob("*/__init__.py")}
    names = {name for name in names if _is_foreign(name, folder)}
    return [name for name in sys.modules if name.partition(".")[0] in names]


def _is_foreign(name: str, folder: Path) -> bool:
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if module is None or file is None or name in ("__main__", "tersely"):
        return False
    # What is installed stays: it may hold state that a second import would double.
    installed: list[Path | str] = [
        sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")
    ]
    return not any(Path(file).is_relative_to(place) for place in (folder, *installed))
