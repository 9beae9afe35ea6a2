"""Entries of config lists as typed objects; each is the mapping that one would write instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import attrs

from tersely.json_value import Json

Scheme = Literal["symmetric", "affine"]
Group = str | int


@attrs.frozen(kw_only=True, eq=False, repr=False)
class _Entry(Mapping[str, Json]):
    """What entries of all methods have: which modules, and which of their targets."""

    op_names: Sequence[str] | None = None
    op_names_re: Sequence[str] | None = None
    op_types: Sequence[str] | None = None
    exclude_op_names: Sequence[str] | None = None
    exclude_op_names_re: Sequence[str] | None = None
    exclude_op_types: Sequence[str] | None = None
    target_names: Sequence[str] | None = None
    target_settings: Mapping[str, Mapping[str, Json]] | None = None

    def to_dict(self) -> dict[str, Json]:
        """Return the entry as a document has it: the keys that were given, in order."""
        # lambda is a reserved word in Python, but not in a document.
        return {name.rstrip("_"): value for name, value in self._given().items()}

    def __repr__(self) -> str:
        given = (f"{name}={value!r}" for name, value in self._given().items())
        return f"{type(self).__name__}({', '.join(given)})"

    def _given(self) -> dict[str, Json]:
        return {
            field.name: value
            for field in attrs.fields(type(self))
            if (value := getattr(self, field.name)) is not None
        }

    def __getitem__(self, key: str) -> Json:
        return self.to_dict()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return len(self.to_dict())


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PruningEntry(_Entry):
    """An entry of a pruning config list, checked like any mapping when a recipe is loaded.

    Args:
        op_names: exact names of modules.
        op_names_re: regular expressions that names match from their first character.
        op_types: class names, or dotted class paths.
        exclude_op_names: exact names to exclude.
        exclude_op_names_re: regular expressions whose matches are excluded.
        exclude_op_types: types to exclude.
        target_names: the targets of each module; by default those that suit its type.
        target_settings: target name -> keys of that target alone.
        sparse_ratio: the share of each target, or of its group, that is masked; a number, or a
            fraction such as ``"1/6"``, as for the other two ratios.
        max_sparse_ratio: the largest share of each target that may be masked.
        min_sparse_ratio: the smallest share of each target that is masked.
        sparse_threshold: what scores below this number is masked.
        global_group_id: targets with the same id share one budget.
        budget: what the ratio of a global group counts: masked elements, or what shrinking removes.
        dependency_group_id: targets with the same id lose the same positions.
        granularity: which elements share one decision.
        internal_metric_block: into how many equal runs the positions are split.
        dependency_parts: how many equal parts of the positions go together, as in packed weights.
        align: the target whose mask these targets take.
        apply_method: whether a mask multiplies or adds.
        mask_value: what ``add`` adds where the mask removes.
    """

    sparse_ratio: float | str | None = None
    max_sparse_ratio: float | str | None = None
    min_sparse_ratio: float | str | None = None
    sparse_threshold: float | None = None
    global_group_id: Group | None = None
    budget: Literal["elements", "parameters", "macs"] | None = None
    dependency_group_id: Group | None = None
    granularity: str | Sequence[Json] | Mapping[str, Json] | None = None
    internal_metric_block: int | None = None
    dependency_parts: int | None = None
    align: Mapping[str, Json] | None = None
    apply_method: Literal["mul", "add"] | None = None
    mask_value: float | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class QuantizationEntry(_Entry):
    """An entry of a quantization config list, checked like any mapping when a recipe is loaded.

    Args:
        op_names: exact names of modules.
        op_names_re: regular expressions that names match from their first character.
        op_types: class names, or dotted class paths.
        exclude_op_names: exact names to exclude.
        exclude_op_names_re: regular expressions whose matches are excluded.
        exclude_op_types: types to exclude.
        target_names: the targets of each module; by default those that suit its type.
        target_settings: target name -> keys of that target alone.
        fuse_names: groups of module names, each folded into its first module; ``auto``;
            or ``none``.
        quant_dtype: the type that values are rounded to, as in ``int8``.
        quant_scheme: whether zero is in the middle of the range.
        granularity: which elements share one scale.
        apply_method: how a value is replaced.
    """

    fuse_names: Sequence[Sequence[str]] | Literal["auto", "none"] | None = None
    quant_dtype: str | None = None
    quant_scheme: Scheme | None = None
    granularity: str | Sequence[Json] | Mapping[str, Json] | None = None
    apply_method: Literal["clamp_round", "qat_clamp_round", "bypass"] | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DistillationEntry(_Entry):
    """An entry of a distillation config list, checked like any mapping when a recipe is loaded.

    Args:
        op_names: exact names of modules.
        op_names_re: regular expressions that names match from their first character.
        op_types: class names, or dotted class paths.
        exclude_op_names: exact names to exclude.
        exclude_op_names_re: regular expressions whose matches are excluded.
        exclude_op_types: types to exclude.
        target_names: the targets of each module; by default those that suit its type.
        target_settings: target name -> keys of that target alone.
        lambda_: the key ``lambda``, the factor of each target's loss.
        link: the teacher's module to learn from, or several.
        apply_method: the loss, by name or with its options.
        projection: how the student's features are mapped to the teacher's width.
    """

    lambda_: float | None = None
    link: str | Sequence[str] | None = None
    apply_method: str | Mapping[str, Mapping[str, Json]] | None = None
    projection: str | None = None
