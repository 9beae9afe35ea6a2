"""Counting what shrinking with given masks would remove, without changing the model (rule B4.7)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs
from torch import Tensor, nn

from tersely.contracts.calling import call_arguments
from tersely.contracts.settings import Budget
from tersely.errors import PlanError
from tersely.masking.counted import Removal
from tersely.shrinking.counting.operations import Sizes, count_operations
from tersely.shrinking.cutting.masked_weights import MaskedWeights, Used
from tersely.shrinking.graph.program import Program, named_tensors, read_program
from tersely.shrinking.graph.solve import cuts_of, solve
from tersely.shrinking.operators.walk import walk


@attrs.frozen(eq=False)
class CountsShrunk:
    """Counts what masks would remove from a model; reads the weights when it is called.

    Attributes:
        program: the operators that the model runs.
        tensors: its parameters and buffers, by every name.
        names: every name of a parameter or buffer -> the first one.
    """

    program: Program
    tensors: Mapping[str, Tensor]
    names: Mapping[str, str]

    @classmethod
    def of(cls, model: nn.Module, example_inputs: Any) -> CountsShrunk:
        """Export a model to count with.

        Args:
            model: the model, without instruments.
            example_inputs: its inputs, as in `call_arguments`.

        Raises:
            PlanError: the model cannot be exported.
        """
        args, kwargs = call_arguments(example_inputs)
        try:
            program = read_program(model, args, kwargs)
        except Exception as error:
            text = str(error).strip().splitlines()
            raise PlanError(
                "budget counts what shrinking removes and cannot follow the model's forward: "
                f"torch.export says {text[0] if text else type(error).__name__!r}; give "
                "example_inputs that the model runs with, and take branches that depend on values "
                "out of forward, or leave budget out"
            ) from error
        tensors = named_tensors(model)
        first = {id(tensor): name for name, tensor in reversed(list(tensors.items()))}
        names = {name: first[id(tensor)] for name, tensor in tensors.items()}
        parameters = {node: names[name] for node, name in program.parameters.items()}
        return cls(attrs.evolve(program, parameters=parameters), tensors, names)

    def __call__(self, budget: Budget, kept: Mapping[str, Tensor]) -> Removal:
        """Return what shrinking removes, and what there is before.

        Args:
            budget: the quantity to count.
            kept: parameter -> its mask, bool, True = kept, the parameter's shape.
        """
        canonical = {self.names[name]: mask for name, mask in kept.items()}
        trace = walk(self.program, MaskedWeights(self.tensors, canonical, Used()))
        solution = solve(trace)
        cuts = cuts_of(solution)
        if budget == "macs":
            before = count_operations(Sizes(trace))
            return Removal(before - count_operations(Sizes(trace, solution, cuts)), before)
        own = [
            one
            for name, one in self.tensors.items()
            if isinstance(one, nn.Parameter) and self.names[name] == name
        ]
        gone = [one for one in cuts.values() if isinstance(self.tensors[one.name], nn.Parameter)]
        removed = sum(math.prod(one.before) - math.prod(one.after) for one in gone)
        return Removal(removed, sum(one.numel() for one in own))
