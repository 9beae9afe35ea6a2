"""Templates: the targets and settings a module type has when an entry names none (rule T2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
from torch import nn

from tersely.contracts.kinds import Method
from tersely.json_value import Json
from tersely.planning.selecting.classes import is_type
from tersely.planning.targets.addresses import twin
from tersely.registry.core_face import DISTILLED, QUANTIZED, RANKED
from tersely.registry.descriptors import ModuleSetting

GENERIC: Mapping[Method, Mapping[str, Json]] = {
    "pruning": RANKED,
    "quantization": QUANTIZED,
    "distillation": DISTILLED,
}
"""The setting of a target that its module's template does not name."""

_ANY_MODULE = ModuleSetting(module_type="torch.nn.Module")


@attrs.frozen(slots=False, eq=False)
class Templates:
    """The module settings in force, looked up by class.

    Attributes:
        settings: all settings; of two for one class the later counts, but one that has no targets
            for a method leaves those of the earlier in force.
    """

    settings: Sequence[ModuleSetting]
    _found: dict[type[nn.Module], Sequence[ModuleSetting]] = attrs.field(factory=dict, init=False)

    def setting_of(self, cls: type[nn.Module]) -> ModuleSetting:
        """Return where the channels of a class are: by its own setting or its nearest base's.

        A subclass has no template of its own (rule S4 takes types exactly), but its weight has
        the dimensions of the class it derives from.
        """
        for base in cls.__mro__:
            if issubclass(base, nn.Module) and (found := self._find(base)):
                return found[-1]
        return _ANY_MODULE

    def targets_of(
        self, cls: type[nn.Module], method: Method
    ) -> Mapping[str, Mapping[str, Json]] | None:
        """Return the default targets of a class, or None when it has no template.

        Args:
            cls: the user's class.
            method: pruning, quantization or distillation.
        """
        for setting in reversed(self._find(cls)):
            own: Mapping[str, Mapping[str, Json]] = getattr(setting, method)
            if own:
                return own
        # Any module can be distilled at its output (rule D1).
        return {"_output_": DISTILLED} if method == "distillation" else None

    def _find(self, cls: type[nn.Module]) -> Sequence[ModuleSetting]:
        if cls not in self._found:
            self._found[cls] = [one for one in self.settings if is_type(cls, one.module_type)]
        return self._found[cls]


def template_of(
    targets: Mapping[str, Mapping[str, Json]], target: str, method: Method
) -> Mapping[str, Json]:
    """Return the template setting of one target, the generic one if the type's lacks it.

    Args:
        targets: the type's template, without stars.
        target: the target's name as the entry spells it.
        method: pruning, quantization or distillation.
    """
    own = targets.get(target)
    if own is None:
        own = targets.get(twin(target) or "")
    return GENERIC[method] if own is None else own


def expand_stars(
    targets: Mapping[str, Mapping[str, Json]], names: Sequence[str]
) -> Mapping[str, Mapping[str, Json]]:
    """Replace every ``prefix*`` of a template by the parameters that start like it.

    Args:
        targets: a type's template.
        names: the module's parameter names.

    Returns:
        The template with one target per existing parameter; itself when it has no star.
    """
    if not any(target.endswith("*") for target in targets):
        return targets
    found: dict[str, Mapping[str, Json]] = {}
    for name in names:
        for target, setting in targets.items():
            if target == name:
                found[name] = setting
            elif target.endswith("*") and name.startswith(target[:-1]):
                found[name] = _with_ending(setting, name[len(target) - 1 :])
    plain = {key: value for key, value in targets.items() if not key.endswith("*")}
    return {**plain, **found}


def _with_ending(setting: Mapping[str, Json], ending: str) -> Mapping[str, Json]:
    align = setting.get("align")
    if not align or not align["target_name"].endswith("*"):
        return setting
    return {**setting, "align": {**align, "target_name": align["target_name"][:-1] + ending}}
