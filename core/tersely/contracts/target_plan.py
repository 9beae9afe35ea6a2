"""Planned targets: the settings of one tensor of one module."""

from __future__ import annotations

import attrs

from tersely.arithmetic.blocks import Blocks
from tersely.contracts.kinds import Method, TargetKind
from tersely.contracts.settings import (
    Align,
    DistillationSetting,
    PruningSetting,
    QuantizationSetting,
    Setting,
)


@attrs.frozen
class Origin:
    """The entry of the document that decided something.

    Attributes:
        path: the entry, as in ``pruning.config_list[0]``.
        selector: the key and value that selected the module, as in ``op_types: Conv2d``.
        line: the entry's 1-based line in its file, or None.
        is_preset: whether it is an entry of a preset.
    """

    path: str
    selector: str = ""
    line: int | None = None
    is_preset: bool = False

    def __str__(self) -> str:
        return f"{self.path} ({self.selector})" if self.selector else self.path


@attrs.frozen
class TargetPlan:
    """The settings of one tensor of one module.

    Attributes:
        module: the module's name as in ``named_modules()``; empty for the root.
        target: a parameter or buffer name, or an address such as ``_input_`` or ``_output_0``.
        kind: parameter, buffer, input or output.
        method: pruning, quantization or distillation.
        algorithm: the algorithm's short name; for distillation the loss's.
        setting: its settings after template, shortcuts and target_settings, with defaults; equal
            targets share one object.
        origin: the entry that decided.
        shared_with: other names of the same tensor, as in ``decoder.weight`` (tied parameters)
            or ``alias.weight`` (shared modules).
        stage: index of the stage in ``Plan.recipe.stages``.
        shape: the tensor's shape, or None for inputs and outputs.
        blocks: which elements share a decision, or None if the shape is not known yet, the
            target is aligned without a granularity of its own, or the method has no blocks.
        module_type: the module's class name.
        output_dim: the dimension of the module's weight that counts output channels.
        input_dim: the dimension of the module's weight that counts input channels.
        channel_dim: the dimension of the module's activations that holds channels, counted with
            the batch: 1 or -1.
        groups: how often the output channels of the weight's ``output_dim`` repeat, for one after
            the other of as many runs of input channels; more than 1 for grouped transposed
            convolutions.
        has_experts: whether the parameter stacks one tensor for each expert along dimension 0, see
            `tersely.contracts.experts`.
        expert: which of them the plan is of, where an algorithm is shown one alone; None in a plan.
    """

    module: str
    target: str
    kind: TargetKind
    method: Method
    algorithm: str
    setting: Setting
    origin: Origin
    shared_with: tuple[str, ...] = ()
    stage: int = 0
    shape: tuple[int, ...] | None = None
    blocks: Blocks | None = None
    module_type: str = ""
    output_dim: int = 0
    input_dim: int = 1
    channel_dim: int = -1
    groups: int = 1
    has_experts: bool = False
    expert: int | None = None

    @property
    def name(self) -> str:
        """The full name for people: ``module.target``, or the target alone for the root."""
        name = f"{self.module}.{self.target}" if self.module else self.target
        return name if self.expert is None else f"{name}[{self.expert}]"

    @property
    def place(self) -> dict[str, str]:
        """What an error about the target carries: its name, the deciding entry, the algorithm."""
        return {"target": self.name, "path": self.origin.path, "algorithm": self.algorithm}

    @property
    def pruning(self) -> PruningSetting:
        """The setting of a pruning target."""
        if isinstance(self.setting, PruningSetting):
            return self.setting
        raise TypeError(f"{self.name} is planned for {self.method}, not for pruning")

    @property
    def quantization(self) -> QuantizationSetting:
        """The setting of a quantization target."""
        if isinstance(self.setting, QuantizationSetting):
            return self.setting
        raise TypeError(f"{self.name} is planned for {self.method}, not for quantization")

    @property
    def distillation(self) -> DistillationSetting:
        """The setting of a distillation target."""
        if isinstance(self.setting, DistillationSetting):
            return self.setting
        raise TypeError(f"{self.name} is planned for {self.method}, not for distillation")

    @property
    def align(self) -> Align | None:
        """The target whose mask this one follows, or None."""
        return self.setting.align if isinstance(self.setting, PruningSetting) else None
