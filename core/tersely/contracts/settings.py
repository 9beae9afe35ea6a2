"""What a plan asks of one target, typed: one frozen class for each method, defaults filled.

Each class is made of the resolved keys of a target by ``of``, and keeps them for ``to_dict``:

    document key             attribute                      where nothing is written
    sparse_ratio             PruningSetting.sparse_ratio    None
    min_sparse_ratio         .min_sparse_ratio              0
    max_sparse_ratio         .max_sparse_ratio              1
    budget                   .budget                        elements
    internal_metric_block    .internal_metric_block         1
    dependency_parts         .dependency_parts              1
    align                    .align (an `Align`)            None
    mask_value               .mask_value                    -1000
    quant_dtype              QuantizationSetting.quant_dtype    int8
    quant_scheme             .quant_scheme                  the algorithm's own
    lambda                   DistillationSetting.weight     1
    link                     .links (a tuple of names)      None, the module's own name
    apply_method             .loss and .loss_options        mse without options
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, cast

import attrs

from tersely.contracts.frozen_json import FrozenMapping, thawed
from tersely.json_value import Json

Scheme: TypeAlias = Literal["symmetric", "affine"]

Budget: TypeAlias = Literal["elements", "parameters", "macs"]
"""What the ratio of a global group is counted in: see `PruningSetting.budget`."""

DEFAULT_BUDGET: Budget = "elements"
"""What the ratio of a global group counts where nothing is written."""

DEFAULT_GRANULARITY = "default"
"""The granularity that means the algorithm's own default."""

DEFAULT_MASKING: Literal["mul", "add"] = "mul"
"""How masks apply where nothing is written."""

DEFAULT_DTYPE = "int8"
"""The quantized type where nothing is written."""

DEFAULT_QUANTIZING = "clamp_round"
"""How quantization applies where nothing is written."""

DEFAULT_LOSS = "mse"
"""The distillation loss where nothing is written."""

ACCUMULATOR = "int32"
"""The dtype of sums of products of integers, in which a bias may be given."""


@attrs.frozen
class Align:
    """Which target's mask another one follows.

    Attributes:
        target_name: the target that is followed.
        dims: the dimensions of it to which the follower's first dimensions correspond.
        module_name: the module that has it, or None for the follower's own.
    """

    target_name: str
    dims: tuple[int, ...] = attrs.field(converter=tuple)
    module_name: str | None = None

    def module_for(self, own: str) -> str:
        """Return the name of the module that is followed.

        Args:
            own: the name of the follower's module.
        """
        return own if self.module_name is None else self.module_name

    def source_name(self, own: str) -> str:
        """Return the full name of the target that is followed.

        Args:
            own: the name of the follower's module.
        """
        module = self.module_for(own)
        return f"{module}.{self.target_name}" if module else self.target_name


def _frozen(keys: Mapping[str, Json]) -> FrozenMapping:
    return keys if isinstance(keys, FrozenMapping) else FrozenMapping.of(keys)


@attrs.frozen(kw_only=True)
class _Keys:
    """The resolved keys of a target; equal settings may be spelled differently."""

    _keys: Mapping[str, Json] = attrs.field(factory=dict, converter=_frozen, repr=False, eq=False)

    def to_dict(self) -> dict[str, Json]:
        """Return every key of the target as the document spells it; null is not set."""
        return cast("dict[str, Json]", thawed(self._keys))


@attrs.frozen(kw_only=True)
class PruningSetting(_Keys):
    """What a plan asks of a target that is pruned.

    Attributes:
        sparse_ratio: the share of blocks to mask, or None.
        sparse_threshold: blocks of lower importance are masked, or None.
        min_sparse_ratio: the share of blocks that is masked at least.
        max_sparse_ratio: the share of blocks that is masked at most.
        global_group_id: the group that shares one budget, or None.
        dependency_group_id: the group that shares one decision, or None.
        budget: what the ratio of the global group counts: masked elements, or what shrinking with
            the masks removes, in parameters or in multiply-accumulate operations of the model.
        granularity: which elements share a decision, as the document spells it.
        internal_metric_block: equal runs of blocks, in each of which the ratio is met.
        dependency_parts: equal parts of the blocks, of which block i of all shares one decision.
        align: the target whose mask this one follows, or None when it is ranked itself.
        apply_method: ``mul`` or ``add``.
        mask_value: what ``add`` adds where the mask removes.
    """

    sparse_ratio: float | None = None
    sparse_threshold: float | None = None
    min_sparse_ratio: float = 0
    max_sparse_ratio: float = 1
    global_group_id: str | int | None = None
    dependency_group_id: str | int | None = None
    budget: Budget = DEFAULT_BUDGET
    granularity: Json = attrs.field(default=DEFAULT_GRANULARITY, hash=False)
    internal_metric_block: int = 1
    dependency_parts: int = 1
    align: Align | None = None
    apply_method: Literal["mul", "add"] = DEFAULT_MASKING
    mask_value: float = -1000.0

    @classmethod
    def of(cls, keys: Mapping[str, Json]) -> PruningSetting:
        """Return the setting that resolved keys mean.

        Args:
            keys: keys of a config list; null and unknown ones mean nothing.
        """
        frozen = FrozenMapping.of(keys)
        given = _given(cls, frozen)
        if "align" in given:
            given["align"] = Align(**given["align"])
        return cls(keys=frozen, **given)

    @property
    def is_additive(self) -> bool:
        """Whether the mask is added instead of multiplied."""
        return self.apply_method == "add"

    @property
    def runs(self) -> int:
        """In how many runs of decisions the ratio is met; those that parts repeat count once."""
        return self.internal_metric_block // math.gcd(
            self.internal_metric_block, self.dependency_parts
        )

    @property
    def is_grouped(self) -> bool:
        """Whether the target decides together with others."""
        return self.global_group_id is not None or self.dependency_group_id is not None

    @property
    def is_counted_small(self) -> bool:
        """Whether the ratio counts what shrinking removes, which only a run of the model shows."""
        return self.budget != DEFAULT_BUDGET

    @property
    def is_default_granularity(self) -> bool:
        """Whether the algorithm's own granularity counts."""
        return bool(self.granularity == DEFAULT_GRANULARITY)


@attrs.frozen(kw_only=True)
class QuantizationSetting(_Keys):
    """What a plan asks of a target that is quantized.

    Attributes:
        quant_dtype: the quantized type, such as ``int8``.
        quant_scheme: ``symmetric`` or ``affine``.
        granularity: which elements share a scale, as the document spells it.
        apply_method: ``clamp_round``, ``qat_clamp_round`` or ``bypass``.
    """

    quant_dtype: str = DEFAULT_DTYPE
    quant_scheme: Scheme = "symmetric"
    granularity: Json = attrs.field(default=DEFAULT_GRANULARITY, hash=False)
    apply_method: str = DEFAULT_QUANTIZING

    @classmethod
    def of(
        cls, keys: Mapping[str, Json], *, default_scheme: Scheme = "symmetric"
    ) -> QuantizationSetting:
        """Return the setting that resolved keys mean.

        Args:
            keys: keys of a config list; null and unknown ones mean nothing.
            default_scheme: the algorithm's own scheme.
        """
        frozen = FrozenMapping.of(keys)
        return cls(keys=frozen, **{"quant_scheme": default_scheme, **_given(cls, frozen)})

    @property
    def is_simulated(self) -> bool:
        """Whether forward computes with quantized values, or they are only observed."""
        return self.apply_method != "bypass"

    @property
    def is_clipping_gradients(self) -> bool:
        """Whether no gradient passes where a value was clamped, whatever the algorithm says."""
        return self.apply_method == "qat_clamp_round"

    @property
    def is_accumulated(self) -> bool:
        """Whether a bias is given in the type of its accumulator, with a scale that follows."""
        return self.quant_dtype == ACCUMULATOR


@attrs.frozen(kw_only=True)
class DistillationSetting(_Keys):
    """What a plan asks of a target that learns from a teacher.

    Attributes:
        weight: ``lambda``, what its loss is multiplied by.
        links: the teacher's modules it learns from, or None for the one of its own name.
        loss: the loss's name.
        loss_options: the loss's options.
        projection: ``linear`` for a learned map between widths, ``conv1x1`` between channels, or
            None.
    """

    weight: float = 1.0
    links: tuple[str, ...] | None = None
    loss: str = DEFAULT_LOSS
    loss_options: Mapping[str, Json] = attrs.field(factory=dict, hash=False)
    projection: str | None = None

    @classmethod
    def of(
        cls, keys: Mapping[str, Json], *, default_loss: str = DEFAULT_LOSS
    ) -> DistillationSetting:
        """Return the setting that resolved keys mean.

        Args:
            keys: keys of a config list; null and unknown ones mean nothing.
            default_loss: how the default loss is spelled.
        """
        frozen = FrozenMapping.of(keys)
        given: dict[str, Any] = {"loss": default_loss}
        if frozen.get("lambda") is not None:
            given["weight"] = float(frozen["lambda"])
        link = frozen.get("link")
        if link is not None:
            given["links"] = (link,) if isinstance(link, str) else tuple(link)
        method = frozen.get("apply_method")
        if isinstance(method, Mapping):
            ((given["loss"], options),) = method.items()
            given["loss_options"] = options or {}
        elif method is not None:
            given["loss"] = method
        return cls(keys=frozen, projection=frozen.get("projection"), **given)

    def links_of(self, module: str) -> tuple[str, ...]:
        """Return the teacher's modules that a target is linked to.

        Args:
            module: the name of the target's module.
        """
        return (module,) if self.links is None else self.links


Setting: TypeAlias = PruningSetting | QuantizationSetting | DistillationSetting


def _given(cls: type[PruningSetting | QuantizationSetting], keys: Mapping[str, Json]) -> Any:
    # The fields are named after the keys of the document.
    fields = attrs.fields_dict(cls)
    return {
        key: value
        for key, value in keys.items()
        if value is not None and key in fields and key != "_keys"
    }
