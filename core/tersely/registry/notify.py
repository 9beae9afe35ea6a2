"""Tells every plugin what happened, whatever another one does."""

from __future__ import annotations

from collections.abc import Mapping

import pluggy

from tersely.errors import BrokenPluginError, TerselyError
from tersely.registry.collect import OBSERVING_HOOKS, describe
from tersely.registry.trace import timed


def notify(
    manager: pluggy.PluginManager, hook_name: str, *, arguments: Mapping[str, object]
) -> None:
    """Call every plugin's implementation of an observing hook, then raise the first failure.

    Args:
        manager: knows the implementations.
        hook_name: the hook.
        arguments: the hook's arguments by name; an implementation receives those it declares.

    Raises:
        ValueError: it is not an observing hook.
        TerselyError: a plugin raised it of its own will, such as a PlanError that vetoes a plan.
        BrokenPluginError: a plugin raised anything else; chained.
    """
    if hook_name not in OBSERVING_HOOKS:
        raise ValueError(f"{hook_name!r} is not among the hooks {', '.join(OBSERVING_HOOKS)}")
    errors: list[TerselyError] = []
    # pluggy calls the last registered first, and keeps implementations in the reverse order.
    for each in reversed(getattr(manager.hook, hook_name).get_hookimpls()):
        try:
            with timed(each.plugin_name, "hook", hook_name):
                each.function(*(arguments[name] for name in each.argnames))
        except TerselyError as error:
            errors.append(error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # foreign code, which may even call sys.exit
            broken = BrokenPluginError(
                f"{each.plugin_name} is broken: {hook_name}() raised {describe(error)}",
                plugin=each.plugin_name,
            )
            broken.__cause__ = error
            errors.append(broken)
    if errors:
        raise errors[0]
