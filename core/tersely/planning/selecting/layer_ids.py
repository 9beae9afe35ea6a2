"""Group ids that mean one group in each repeated block of a model (rule B5.6)."""

from __future__ import annotations

import attrs

from tersely.contracts.settings import PruningSetting, Setting
from tersely.planning.stages.draft import Draft

LAYER = "{layer}"
_KEYS = ("global_group_id", "dependency_group_id")


def spell_layers(draft: Draft) -> None:
    """Replace ``{layer}`` in group ids by the block that a target is in.

    Args:
        draft: the plan so far; its targets are replaced, what is wrong is added to its problems.
    """
    all_settings = {id(one.setting): one.setting for one in draft.targets if one is not None}
    written = {key: _templates(setting) for key, setting in all_settings.items()}
    if not any(written.values()):
        return
    settings: dict[tuple[int, str], PruningSetting] = {}
    for index, target in enumerate(draft.targets):
        if target is None or not isinstance(setting := target.setting, PruningSetting):
            continue
        templates = written[id(setting)]
        if not templates:
            continue
        layer = layer_of(target.module)
        if layer is None:
            key, value = next(iter(templates.items()))
            draft.blame(
                target.origin.path,
                target.name,
                f"{key} {value!r} stands for one group in each repeated block, and the module's "
                "name has no number, as in encoder.layer.0; leave it out, or write an id without "
                f"{LAYER}",
            )
            continue
        alike = (id(setting), layer)
        if alike not in settings:
            spelled = {key: value.replace(LAYER, layer) for key, value in templates.items()}
            settings[alike] = PruningSetting.of({**setting.to_dict(), **spelled})
        draft.targets[index] = attrs.evolve(target, setting=settings[alike])


def layer_of(module: str) -> str | None:
    """Return the repeated block that a module is or is part of, or None.

    Args:
        module: its full name.

    Returns:
        The name up to and with its first number: ``encoder.layer.3`` of
        ``encoder.layer.3.attention.query``.
    """
    parts = module.split(".")
    for place, part in enumerate(parts):
        if part.isdecimal():
            return ".".join(parts[: place + 1])
    return None


def _templates(setting: Setting) -> dict[str, str]:
    if not isinstance(setting, PruningSetting):
        return {}
    found = {key: getattr(setting, key) for key in _KEYS}
    return {key: value for key, value in found.items() if isinstance(value, str) and LAYER in value}
