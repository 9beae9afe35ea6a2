"""Checks of a plugin object's options against its signature and its source."""

from __future__ import annotations

import ast
import dis
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from types import CodeType, FunctionType

from tersely.json_value import Json


def default_problem(implementation: object, schema: Mapping[str, Json]) -> str:
    """Return a message about the first default that differs between schema and code, or "".

    Args:
        implementation: the class or function that takes the options.
        schema: the descriptor's ``options``.
    """
    taken = _parameters(implementation)
    for name, described in schema.get("properties", {}).items():
        if not isinstance(described, Mapping) or "default" not in described or name not in taken:
            continue
        found, stated = taken[name].default, described["default"]
        if found is inspect.Parameter.empty or repr(found) in _MADE_AT_EACH_CALL:
            continue  # the core fills it in from the schema, or it is made at each call
        if found != stated and not (isinstance(found, tuple) and list(found) == stated):
            return f"the default of {name!r} is {stated!r} in the schema and {found!r} in the code"
    return ""


def unread_problem(implementation: object, schema: Mapping[str, Json]) -> str:
    """Return a message about options that the code accepts but never reads, or "".

    Args:
        implementation: the class or function that takes the options.
        schema: the descriptor's ``options``.
    """
    makers: list[object]
    if inspect.isclass(implementation):
        makers = [getattr(implementation, name) for name in ("__init__", "__new__")]
    else:
        makers = [implementation]
    codes = [one.__code__ for one in makers if isinstance(one, FunctionType)]
    taken = {name for one in codes for name in _names_taken(one)}
    read = {name for one in codes for name in _names_read(one)}
    unread = [name for name in schema.get("properties", {}) if name in taken - read]
    return f"options {unread} are accepted but never read, so they have no effect" if unread else ""


def interruption_problem(implementation: object) -> str:
    """Return a message about an ``except`` that swallows KeyboardInterrupt, or "".

    Args:
        implementation: the class or function.
    """
    try:
        source = inspect.getsource(implementation)  # type: ignore[arg-type]  # or a TypeError
        parsed = ast.parse(textwrap.dedent(source))
    except (OSError, TypeError, SyntaxError):
        return ""  # it was created at run time, or its lines are not a complete statement
    for node in ast.walk(parsed):
        if not isinstance(node, ast.ExceptHandler) or not _takes_all(node):
            continue
        if not any(isinstance(one, ast.Raise) for one in ast.walk(node)):
            return (
                f"line {node.lineno} of its source catches KeyboardInterrupt, so Ctrl+C cannot "
                "stop it; catch Exception, or re-raise it"
            )
    return ""


def _takes_all(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {one.id for one in kinds if isinstance(one, ast.Name)}
    return handler.type is None or bool(names & {"BaseException", "KeyboardInterrupt"})


def _parameters(implementation: object) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(implementation).parameters  # type: ignore[arg-type]  # or a TypeError
    except (TypeError, ValueError):
        return {}


def _names_taken(code: CodeType) -> Sequence[str]:
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _names_read(code: CodeType) -> frozenset[str]:
    if "locals" in code.co_names:
        return frozenset(code.co_varnames)
    read = set(code.co_cellvars)
    for one in dis.get_instructions(code):
        if "LOAD_FAST" in one.opname or one.opname.startswith("LOAD_CLOSURE"):
            # Since Python 3.13 one instruction may read two variables.
            read.update(one.argval if isinstance(one.argval, tuple) else (one.argval,))
    return frozenset(read)


_MADE_AT_EACH_CALL = ("NOTHING", "<factory>")
"""How signatures show default factories of attrs and of dataclasses."""
