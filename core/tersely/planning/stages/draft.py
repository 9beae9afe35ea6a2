"""The plan while it is being made: who claimed which tensor, and what went wrong so far."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
from torch import Tensor

from tersely.contracts.kinds import Method
from tersely.contracts.target_plan import Origin, TargetPlan
from tersely.document.recipe import OnConflict, Recipe
from tersely.errors import PlanError
from tersely.planning.plan import Plan
from tersely.planning.remarks import Skipped, Unmatched
from tersely.planning.selecting.selection import Universe
from tersely.planning.stages.shadows import Shadows
from tersely.planning.targets.addresses import Address, parse_address
from tersely.planning.targets.owners import Owners
from tersely.planning.targets.signature import Signature, signature_of
from tersely.planning.targets.templates import Templates
from tersely.text import nearest

_SUGGESTIONS = 20  # searching a large model for names that look alike is slow


@attrs.define(eq=False)
class Draft:
    """Collects targets; mutable because planning adds to it entry by entry.

    Attributes:
        universe: the model's modules.
        owners: who owns which tensor.
        templates: the module settings in force.
        recipe: what is being resolved.
        targets: what is planned; None where another entry took the target over.
        claims: for each method and address the identity of a module -> the index in ``targets`` of
            its input or output there; under None the identity of a parameter or buffer -> its.
        selected: positions of all selected modules.
        selected_by: path of an entry, or of a stage, that folds modules -> positions of those it
            selects.
    """

    universe: Universe
    owners: Owners
    templates: Templates
    recipe: Recipe
    targets: list[TargetPlan | None] = attrs.field(factory=list)
    claims: dict[tuple[Method, Address | None], dict[int, int]] = attrs.field(factory=dict)
    selected: set[int] = attrs.field(factory=set)
    selected_by: dict[str, frozenset[int]] = attrs.field(factory=dict)
    unmatched: list[Unmatched] = attrs.field(factory=list)
    shadowed: Shadows = attrs.field(factory=Shadows)
    skipped: list[Skipped] = attrs.field(factory=list)
    hints: list[str] = attrs.field(factory=list)
    problems: list[str] = attrs.field(factory=list)
    _blamed: dict[tuple[str, str], tuple[int, str | None, int]] = attrs.field(factory=dict)
    _suggested: int = 0

    def blame(self, path: str, name: str | None, problem: str) -> None:
        """Add the problem of one place; the next targets with the same problem are only counted.

        Args:
            path: where the document asks for it.
            name: the target's full name, or None where it is not about one.
            problem: what is wrong with it.
        """
        place, first, count = self._blamed.get((path, problem), (len(self.problems), name, 0))
        text = (
            f"{path}: {problem}"
            if first is None
            else f"{path}: {first}{and_more(count)}: {problem}"
        )
        if count:
            self.problems[place] = text
        else:
            self.problems.append(text)
        self._blamed[path, problem] = place, first, count + 1

    def refuse_problems(self) -> None:
        """Raise what is wrong, with its place and its target where it is of one alone.

        Raises:
            PlanError: there are problems.
        """
        if not self.problems:
            return
        if len(self.problems) > 1 or not self._blamed:
            raise PlanError(self.problems)
        ((path, _), (_, name, count)), *_ = self._blamed.items()
        algorithm = next(
            (
                one.algorithm or None
                for one in self.recipe.stages
                if f"{path}.".startswith(f"{one.path}.")
            ),
            None,
        )
        raise PlanError(
            self.problems, target=name if count == 1 else None, path=path, algorithm=algorithm
        )

    def suggest(self, word: str, candidates: Iterable[str]) -> tuple[str, ...]:
        """Return the candidates that look most like a word, for the first few words asked for.

        Args:
            word: what was written.
            candidates: what would have been legal.
        """
        if self._suggested == _SUGGESTIONS:
            return ()
        self._suggested += 1
        return nearest(word, candidates)

    def policy(self, method: Method) -> OnConflict:
        """Return who keeps a target of this method that is configured twice (rule T5)."""
        if self.recipe.on_conflict is not None:
            return self.recipe.on_conflict
        return "last" if method == "quantization" else "first"

    def winner_over(self, taken: int, stage: int, origin: Origin) -> Origin | None:
        """Return the entry that keeps a claim from a later one, if nothing else has to be reported.

        Args:
            taken: index of the target that has the claim; the first one keeps it.
            stage: index of the later claim's stage.
            origin: the later claim's entry.
        """
        earlier = self.targets[taken]
        if earlier is None or earlier.origin.path == origin.path:
            return None
        stages = self.recipe.stages
        is_alike = earlier.stage == stage or stages[earlier.stage].begin == stages[stage].begin
        return earlier.origin if is_alike else None

    def settle(self, claims: dict[int, int], identity: int, target: TargetPlan) -> None:
        """Settle who keeps a target that is claimed already.

        Args:
            claims: the claims of the target's method and address.
            identity: what identifies the tensor among them.
            target: the later target.
        """
        taken = claims[identity]
        earlier = self.targets[taken]
        assert earlier is not None  # a claim always points at a live target
        if earlier.origin.path == target.origin.path:
            self._merge(earlier, target)
            return
        begins = [self.recipe.stages[one.stage].begin for one in (earlier, target)]
        if begins[0] != begins[1]:
            self.blame(
                target.origin.path,
                target.name,
                f"{earlier.origin.path} has it for {target.method} in another period, but a target "
                "belongs to one stage from beginning to end; leave it out of one of them",
            )
            return
        policy = self.policy(target.method)
        if policy == "error":
            self.problems.append(
                f"{target.name} is configured twice, by {earlier.origin} and by {target.origin}; "
                "remove one, or set on_conflict to 'first' or 'last'"
            )
            return
        winner, loser = (target, earlier) if policy == "last" else (earlier, target)
        if not loser.origin.is_preset:  # one's own entries are there to change a preset
            self.shadowed.add(
                loser.module, loser.target, loser.method, winner=winner.origin, loser=loser.origin
            )
        if winner is target:
            self.targets[taken] = None
            claims[identity] = len(self.targets)
            self.targets.append(target)

    def _merge(self, earlier: TargetPlan, target: TargetPlan) -> None:
        # One entry reached one tensor under two names: tied parameters, or _input_0 and _input_x.
        alike = earlier.setting == target.setting and earlier.blocks == target.blocks
        if alike:
            return
        if earlier.module == target.module and target.kind in ("input", "output"):
            self.blame(
                target.origin.path,
                None,
                f"{target.name} and {earlier.target} are one {target.kind} with two settings; "
                "write one of them",
            )
        else:
            self.hints.append(
                f"{target.origin.path}: {target.name} is the tensor of {earlier.name} and is "
                f"planned once, as {earlier.name}"
            )

    def find(self, method: Method, module: str, target: str) -> TargetPlan | None:
        """Return the planned target a module and target name mean, or None.

        Args:
            method: pruning, quantization or distillation.
            module: any name of the module.
            target: any spelling of the target.
        """
        position = self.universe.canonical(module)
        if position is None:
            return None
        owner = self.universe.modules[position]
        tensor: Tensor | None = owner._parameters.get(target)
        if tensor is None:
            tensor = owner._buffers.get(target)
        if tensor is not None:
            found = self.claims.get((method, None), {}).get(id(tensor))
        elif (written := parse_address(target)) is not None:
            address = claimed_address(written, signature_of(owner))
            found = self.claims.get((method, address), {}).get(id(owner))
        else:
            found = None
        return None if found is None else self.targets[found]

    def finish(self) -> Plan:
        """Return the plan so far; what is wrong stays in ``problems``."""
        targets = [target for target in self.targets if target is not None]
        if any(len(stage.entries) > 1 for stage in self.recipe.stages):
            # Entries come in any order, and the order of targets settles ties (rule S5).
            index = self.universe.index
            targets.sort(key=lambda target: (target.stage, index[target.module]))
        return Plan(
            targets=tuple(targets),
            recipe=self.recipe,
            selected=tuple(self.universe.names[position] for position in sorted(self.selected)),
            unmatched=tuple(self.unmatched),
            shadowed=self.shadowed,
            skipped=tuple(self.skipped),
            hints=tuple(self.hints),
        )


def claimed_address(address: Address, signature: Signature) -> Address:
    """Return the address under which all spellings of one input or output meet.

    Args:
        address: the address as the document spells it.
        signature: the module's forward, by which ``_input_x`` and ``_input_0`` meet.
    """
    if address.key is None:
        return Address(address.side, 0)
    if isinstance(address.key, str) and address.side == "input":
        index = signature.index_of(address.key)
        return address if index is None else Address("input", index, address.path)
    return address


def and_more(count: int) -> str:
    """Return the words for further names that share a message with the first one.

    Args:
        count: how many further names there are.
    """
    return f" and {count} more" if count else ""
