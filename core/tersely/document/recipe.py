"""A validated document as frozen data: recipes, stages, schedules and config-list entries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Final, Literal, TypeAlias

import attrs

from tersely.contracts.kinds import Method
from tersely.json_value import Json

COUNTED_BUDGETS = ("parameters", "macs")
"""Budgets of global groups that count what shrinking removes (rule B4.7)."""

AUTO: Final = "auto"
"""Written where the graph of the model decides."""

NONE: Final = "none"
"""Written where nothing is to be folded, a preset's batch norms neither."""

OnConflict = Literal["first", "last", "error"]
Hold = Literal["read", "step"]
Unreached = Literal["error", "dense", "magnitude", "rtn"]
FuseNames: TypeAlias = tuple[tuple[str, ...], ...] | Literal["auto"]
"""Tuples of module names, each folded into its first; ``auto`` until a model shows them."""
Written: TypeAlias = Mapping[str, Json] | Sequence[Mapping[str, Json]]
"""A stage as a document has it, or a list of stages."""


@attrs.frozen(kw_only=True)
class Entry:
    """One mapping of a config list.

    Attributes:
        path: its place in the document, as in ``pruning.config_list[0]``.
        op_names: exact module names, or empty.
        op_names_re: regular expressions for ``re.match``, or empty.
        op_types: class names or dotted class paths, or empty.
        exclude_op_names: exact names that are excluded.
        exclude_op_names_re: patterns that are excluded.
        exclude_op_types: types that are excluded.
        target_names: the targets of each selected module, or None for the type's template.
        target_settings: target name -> setting keys of that target alone.
        shortcuts: every other key; reaches the targets whose template has it.
        fuse_names: tuples of module names that fold into the first (quantization only), or
            ``auto``, which planning replaces.
        line: the 1-based line it starts at, or None for Python data.
        is_preset: whether it is part of a preset, which is made for models of all kinds.
        implied: what the preset excludes by itself.
    """

    path: str
    op_names: tuple[str, ...] = ()
    op_names_re: tuple[str, ...] = ()
    op_types: tuple[str, ...] = ()
    exclude_op_names: tuple[str, ...] = ()
    exclude_op_names_re: tuple[str, ...] = ()
    exclude_op_types: tuple[str, ...] = ()
    target_names: tuple[str, ...] | None = None
    target_settings: Mapping[str, Mapping[str, Json]] = attrs.field(factory=dict)
    shortcuts: Mapping[str, Json] = attrs.field(factory=dict)
    fuse_names: FuseNames = ()
    line: int | None = attrs.field(default=None, eq=False)
    is_preset: bool = False
    implied: tuple[str, ...] = ()

    @property
    def counts_removal(self) -> bool:
        """Whether a budget of it counts what shrinking removes, for which the model is run."""
        settings = (self.shortcuts, *self.target_settings.values())
        return any(setting.get("budget") in COUNTED_BUDGETS for setting in settings)


@attrs.frozen(kw_only=True)
class Schedule:
    """How sparsity grows: update t of ``times`` comes every ``every`` steps from step ``begin``.

    Attributes:
        name: the schedule's name in the registry.
        begin: the first optimizer step that counts, in steps from the beginning of training.
        every: steps between two updates.
        times: how many updates lead to the configured sparsity.
        options: the schedule's own options.
    """

    name: str
    begin: int = 0
    every: int = 1
    times: int = 1
    options: Mapping[str, Json] = attrs.field(factory=dict)

    @property
    def end(self) -> int:
        """The optimizer step of the last update."""
        return self.begin + self.every * self.times


@attrs.frozen(kw_only=True)
class Shrink:
    """How what is masked is removed from the model when a stage ends.

    Attributes:
        round_to: row and column counts of weights that lose some stay multiples of this.
        approximate: whether to remove constants that no bias takes over exactly.
    """

    round_to: int = 1
    approximate: bool = False


@attrs.frozen(kw_only=True)
class Stage:
    """One algorithm with its config list.

    Attributes:
        method: pruning, quantization or distillation.
        path: its place in the document, as in ``pruning`` or ``pruning[1]``.
        algorithm: the algorithm's name as written; empty for distillation, whose losses are
            chosen per target.
        options: the algorithm's options.
        entries: the config list.
        schedule: how sparsity grows, or None for all at once.
        task_loss_weight: weight of the user's own loss (distillation only), or None.
        begin: the optimizer step with which the stage's period begins.
        end: the optimizer step with which it ends, or None for the end of training.
        unreached: what becomes of targets that no calibration batch reached: an ``error``, or they
            stay ``dense``, are ranked by ``magnitude`` (pruning) or rounded to nearest (``rtn``,
            quantization).
        preset: what the preset of a quantization stage is, in a sentence; empty without one.
        runtime: the runtime that the preset is made for; empty without one.
        dependency_groups: ``auto`` where targets that share channels are found in the model's graph
            and pruned together (pruning only), or None.
        shrink: how masked channels are removed when the stage ends (pruning only), or None.
        fuse_names: what folds into modules that any of the entries selects, as in an `Entry`
            (quantization only).
        folds_by_preset: whether its preset folds what `auto` would find, if the model can be run
            (rule Q6.7).
        hold: where masks take effect (pruning only): on each ``read`` of a target, or, with
            ``step``, in the parameter itself, which every step of the session zeroes.
    """

    method: Method
    path: str
    algorithm: str = ""
    options: Mapping[str, Json] = attrs.field(factory=dict)
    entries: tuple[Entry, ...] = ()
    schedule: Schedule | None = None
    task_loss_weight: float | None = None
    begin: int = 0
    end: int | None = None
    unreached: Unreached = "error"
    preset: str = ""
    runtime: str = ""
    dependency_groups: Literal["auto"] | None = None
    shrink: Shrink | None = None
    fuse_names: FuseNames = ()
    folds_by_preset: bool = False
    hold: Hold = "read"

    @property
    def holders(self) -> tuple[Stage | Entry, ...]:
        """The stage and its entries: what can say ``fuse_names``."""
        return (self, *self.entries)

    @property
    def folded(self) -> Iterator[tuple[str, ...]]:
        """Every tuple of module names that the stage folds; none where ``auto`` is unresolved."""
        for holder in self.holders:
            if holder.fuse_names != AUTO:
                yield from holder.fuse_names

    def has_begun(self, steps: int) -> bool:
        """Tell whether the stage's period has begun after ``steps`` optimizer steps."""
        return steps >= self.begin

    def is_running(self, steps: int) -> bool:
        """Tell whether the optimizer step after ``steps`` others is in the stage's period."""
        return self.has_begun(steps) and (self.end is None or steps < self.end)


@attrs.frozen(kw_only=True, init=False)
class Recipe:
    """A whole recipe, checked against the schema and the installed plugins.

    ``Recipe(pruning=..., strict=True)`` checks and builds one from the keys that a document has;
    from stages that are built already it is made as it is.

    Attributes:
        stages: all stages, pruning first, then quantization, then distillation, each in the
            order of the document, those of periods after those outside of periods.
        requires: distribution requirements (PEP 508) that were met when it was loaded.
        strict: whether what matches nothing is an error.
        on_conflict: who keeps a target configured twice; None follows the specification (first
            for pruning and distillation, last for quantization).
        document: the plain JSON data the recipe was made from; what sessions save.
        source: the file it came from, or None.
    """

    load: ClassVar[Callable[[Mapping[str, Json]], Recipe]]
    """Checks a document and builds its recipe; `tersely.document.load` puts it here."""

    stages: tuple[Stage, ...]
    requires: tuple[str, ...] = ()
    strict: bool = False
    on_conflict: OnConflict | None = None
    document: Mapping[str, Json] = attrs.field(factory=dict, eq=False, repr=False)
    source: str | None = attrs.field(default=None, eq=False)

    def __init__(  # noqa: PLR0913  # as many as a document has keys
        self,
        *,
        pruning: Written | None = None,
        quantization: Written | None = None,
        distillation: Written | None = None,
        stages: Sequence[Mapping[str, Json]] | tuple[Stage, ...] | None = None,
        requires: Sequence[str] | None = None,
        strict: bool = False,
        on_conflict: OnConflict | None = None,
        document: Mapping[str, Json] | None = None,
        source: str | None = None,
    ) -> None:
        """Check and build a recipe.

        Args:
            pruning: a pruning stage, or a list of them.
            quantization: a quantization stage, or a list of them.
            distillation: a distillation stage, or a list of them.
            stages: periods in order of time; or stages that are built already.
            requires: distributions that have to be installed.
            strict: whether what matches nothing is an error.
            on_conflict: which entry keeps a target that two entries configure.
            document: the data that built stages come from.
            source: the file that built stages come from.

        Raises:
            ConfigError: the keys have mistakes; holds every one of them.
        """
        is_alone = pruning is None and quantization is None and distillation is None
        if is_alone and isinstance(stages, tuple) and all(isinstance(one, Stage) for one in stages):
            self.__attrs_init__(
                stages=stages,
                requires=tuple(requires or ()),
                strict=strict,
                on_conflict=on_conflict,
                document=document or {},
                source=source,
            )
            return
        written = {
            "pruning": pruning,
            "quantization": quantization,
            "distillation": distillation,
            "stages": stages,
            "requires": requires,
            "strict": strict or None,
            "on_conflict": on_conflict,
        }
        given = {key: value for key, value in written.items() if value is not None}
        built = Recipe.load(given)
        self.__attrs_init__(**{f.name: getattr(built, f.name) for f in attrs.fields(Recipe)})
