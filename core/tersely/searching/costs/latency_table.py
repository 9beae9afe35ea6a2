"""Latencies of single layers, from which the latencies of whole settings are predicted."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tersely.errors import PlanError
from tersely.json_value import Json
from tersely.planning.plan import Plan
from tersely.searching.chosen_recipes import Choices, chosen_at_once
from tersely.searching.compressing import CalibrationData, compress
from tersely.searching.costs.costing import Costing, has_structured_masks, shrink_masked
from tersely.searching.costs.latency_entries import Entries
from tersely.searching.costs.parts import Alone, Part, parts_of, with_folds
from tersely.searching.recorded_calls import Call, calls_in
from tersely.searching.trials.study import TrialStore
from tersely.searching.units import Unit, with_level
from tersely.session.session import Session

Calls: TypeAlias = Mapping[str, Sequence[Call]]
"""Names of modules -> their calls, in order."""

Terms: TypeAlias = list[tuple[int, str]]
"""The changes of a setting: 1 and the key of an entry it adds, -1 and the key of one it removes."""

_LEAST = 1e-3
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@attrs.frozen(kw_only=True, eq=False)
class LatencyTable:
    """Latencies of single layers, as shares of the dense model's.

    The table is filled as layers are needed, see `Entries`:

        entry                   what is timed, in turns with the dense model, both in the runtime
                                that is measured: PyTorch, or what runs the export
        ----------------------  ----------------------------------------------------------------
        a layer as it is        its calls alone, with the inputs that the dense model gave it
        a layer, smaller        the same after its channels were removed, from a shrunk model
        a layer in few bits     the same, quantized alone and exported

    Layers of the same shape, options and calls share an entry.

    Attributes:
        plan: the plan of the whole recipe.
        costing: the dense model, its example inputs, the export and the stopwatch.
        parts: the parts that are timed alone.
        calls: the calls of modules in the dense model.
        entries: the measurements.
    """

    plan: Plan
    costing: Costing
    parts: tuple[Part, ...]
    calls: Calls
    entries: Entries

    @classmethod
    def of(
        cls, costing: Costing, plan: Plan, units: Sequence[Unit], store: TrialStore
    ) -> LatencyTable:
        """Return the table of a model, still without measurements.

        Args:
            costing: the dense model, its example inputs, the export and the stopwatch.
            plan: the plan of the whole recipe.
            units: what can be chosen.
            store: where entries are kept.

        Raises:
            PlanError: the model is one layer.
        """
        parts = parts_of(costing.dense, plan, units)
        if not parts:
            raise PlanError("the model is a layer itself, so there is no table; leave --costs out")
        calls = _calls(costing.dense, parts, costing.example_inputs)
        entries = Entries(costing=costing, store=store)
        return cls(plan=plan, costing=costing, parts=parts, calls=calls, entries=entries)

    def share_of(self, session: Session, choices: Choices, data: CalibrationData) -> float:
        """Predict a compressed model's latency as a share of the dense model's.

        Args:
            session: in force on a model of its own, which this call may shrink.
            choices: the choices that the session applied.
            data: the data that its algorithms observed.
        """
        with self.entries.measuring():
            terms = self.terms_of(session, choices, data)
            self.entries.measure_again()
        return self.predict(terms)

    def predict(self, terms: Terms) -> float:
        """Return the predicted latency of a setting, as a share of the dense model's.

        Args:
            terms: the changes of the setting.
        """
        return max(1.0 + sum(sign * self.entries.share(key) for sign, key in terms), _LEAST)

    def terms_of(self, session: Session, choices: Choices, data: CalibrationData) -> Terms:
        """Return the changes of a setting, and measure the entries that are not known yet.

        Args:
            session: in force on a model of its own, which this call may shrink.
            choices: the choices that the session applied.
            data: the data that its algorithms observed.
        """
        model, calls = self._smaller(session, choices, data)
        quantized = [one for one in choices if one[0].method == "quantization"]
        terms: Terms = []
        for part in self.parts:
            chosen = [one for one in quantized if _is_in(one[0], part)]
            if model is self.costing.dense and not chosen:
                continue  # as it is
            before, after = (self._of(part, found) for found in (self.calls, calls))
            if before and after:
                found = self._entry(model, part, after, chosen)
                known = self._entry(self.costing.dense, part, before, ())
                terms += [(1, found), (-1, known)] if found != known else []
        return terms

    def _of(self, part: Part, calls: Calls) -> tuple[Call, ...]:
        return with_folds([one for name in part for one in calls.get(name, ())], self.plan)

    def _smaller(
        self, session: Session, choices: Choices, data: CalibrationData
    ) -> tuple[nn.Module, Calls]:
        """Return a model whose layers have the shapes that choices leave, and its calls."""
        if not has_structured_masks(session.plan):
            return self.costing.dense, self.calls
        pruned = [one for one in choices if one[0].method == "pruning"]
        if len(pruned) < len(choices):
            # Integers belong to a session, and a layer alone gets one of its own.
            recipe = chosen_at_once(self.plan.recipe, pruned)
            model, example = copy.deepcopy(self.costing.dense), self.costing.example_inputs
            with torch.enable_grad():
                session = compress(model, recipe, data, example_inputs=example)
        shrink_masked(session, self.costing.example_inputs)
        model = session.finalize()
        return model, _calls(model, self.parts, self.costing.example_inputs)

    def _entry(self, model: nn.Module, part: Part, calls: Sequence[Call], chosen: Choices) -> str:
        if self.costing.consumer is None:
            chosen = ()  # simulated quantization has no latency of its own
        described = _described(model, part, calls, chosen)
        return self.entries.need(described, partial(self._alone, model, calls, chosen))

    def _alone(
        self, model: nn.Module, calls: Sequence[Call], chosen: Choices, folder: Path
    ) -> Callable[[], object]:
        alone = Alone(model, calls).eval()
        inputs = alone.alone_inputs
        run: Callable[..., object] = alone
        consumer = self.costing.consumer
        if consumer is not None and chosen:
            recipe = chosen_at_once(self.plan.recipe, chosen)
            with torch.enable_grad():
                session = compress(alone, recipe, CalibrationData(batches=[inputs]))
            run = consumer.run_session(session, inputs, folder)
        elif consumer is not None:
            run = consumer.run_plain(alone, inputs, folder)
        return partial(run, *inputs)


def _calls(model: nn.Module, parts: Sequence[Part], example: Any) -> Calls:
    found: dict[str, list[Call]] = {}
    for call in calls_in(model, [name for part in parts for name in part], example):
        found.setdefault(call.module, []).append(call)
    return found


def _is_in(unit: Unit, part: Part) -> bool:
    """Tell whether a part has a module of a unit, or a parent of one."""
    return any(f"{module}.".startswith(f"{root}.") for module in unit.modules for root in part)


def _described(
    model: nn.Module, part: Part, calls: Sequence[Call], chosen: Choices
) -> dict[str, Json]:
    """Return what identifies an entry of the table, equal for similar layers."""
    modules = [model.get_submodule(name) for name in part]
    settings = [
        [_within(part, target.name), target.algorithm, with_level(target, level)]
        for unit, level in chosen
        for target in unit.targets
    ]
    levels = dict.fromkeys(str(level) for _, level in chosen)
    return {
        "part": " and ".join([*(_short(one) for one in modules), *levels]),
        "modules": [_ADDRESS.sub("", repr(one)) for one in modules],
        "attributes": [_attributes(one) for root in modules for one in root.modules()],
        "tensors": [
            [name, *_shape(one)]
            for module in modules
            for name, one in (*module.named_parameters(), *module.named_buffers())
        ],
        "calls": [
            [part.index(call.module)]
            + [_argument(leaf, call) for leaf in tree_leaves((call.args, call.kwargs))]
            for call in calls
        ],
        "settings": json.loads(json.dumps(settings, default=str)),
    }


def _argument(leaf: object, call: Call) -> Json:
    """Return the description of an argument; of an object only its class.

    Two objects of a class may make a layer behave differently, so a layer that is called with one
    shares its entry with no other layer. The ``repr`` of an object differs between processes.
    """
    if isinstance(leaf, Tensor):
        return _shape(leaf)
    if isinstance(leaf, _PLAIN):
        return repr(leaf)
    kind = type(leaf)
    return [call.module, f"{kind.__module__}.{kind.__qualname__}"]


def _attributes(module: nn.Module) -> list[Json]:
    """Return the class of a module and its plain attributes, which its ``repr`` may omit."""
    kind = type(module)
    plain = [
        [name, repr(value)]
        for name, value in vars(module).items()
        if name != "training" and type(value) in _PLAIN
    ]
    return [f"{kind.__module__}.{kind.__qualname__}", *sorted(plain)]


def _within(part: Part, name: str) -> str:
    """Return a target's name with the place of its module in place of that module's name."""
    place = next(n for n, root in enumerate(part) if name.startswith(f"{root}."))
    return f"{place}{name[len(part[place]) :]}"


def _shape(tensor: Tensor) -> list[Json]:
    return [list(tensor.shape), str(tensor.dtype)]


def _short(module: nn.Module) -> str:
    extra = module.extra_repr().partition("\n")[0]
    return f"{type(module).__name__}({extra})"
