"""A plugin that is one Python file: run as a module of its own, and known by its digest."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from types import ModuleType

from tersely.errors import BrokenPluginError
from tersely.registry.collect import describe
from tersely.registry.record import PluginRecord
from tersely.registry.watched import watched_loading

_PREFIX = "tersely_file_"


def run_file(path: Path) -> tuple[ModuleType, PluginRecord]:
    """Run a file as a module that hides no other, whatever the file is called.

    Args:
        path: the file.

    Returns:
        The module, and what is known of it; its version is the digest of what was run.

    Raises:
        BrokenPluginError: it cannot be read, or raises while it runs.
    """
    code, name = _read(path), f"{_PREFIX}{_identifier(path.stem)}"
    module = ModuleType(name)
    module.__file__ = str(path)
    before = sys.modules.get(name)
    sys.modules[name] = module  # objects are pickled by the name of their class's module
    try:
        with watched_loading() as seen:
            exec(compile(code, str(path), "exec"), vars(module))
    except BaseException as error:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
        if isinstance(error, KeyboardInterrupt):
            raise
        # Foreign code, which may even call sys.exit.
        raise _unusable(path, f"running it raised {describe(error)}") from error
    record = PluginRecord(
        name=path.name,
        distribution=path.name,
        version=f"0+sha256.{hashlib.sha256(code).hexdigest()[:12]}",
        file=str(path.resolve()),
        loading=seen(),
    )
    return module, record


def is_module_of(module: ModuleType, name: str) -> bool:
    """Tell whether an implementation's ``module:Object`` means the module of a file.

    Args:
        module: what `run_file` returned.
        name: the part before the colon: the file's name without ``.py``, where ``_`` stands for
            what no identifier holds, or ``__name__``.
    """
    stem = Path(module.__file__ or "").stem
    return name in (module.__name__, stem, _identifier(stem))


def _identifier(stem: str) -> str:
    """Return ``my_pruner`` for ``my-pruner`` and ``_2_of_4`` for ``2-of-4``."""
    name = re.sub(r"\W", "_", stem)
    return f"_{name}" if name[:1].isdigit() else name


def _read(path: Path) -> bytes:
    if path.suffix != ".py":
        raise _unusable(path, "expected a Python file, whose name ends in .py")
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error


def _unusable(path: Path, reason: str) -> BrokenPluginError:
    text = f"{path} cannot be used as a plugin: {reason}"
    return BrokenPluginError(text, plugin=path.name)
