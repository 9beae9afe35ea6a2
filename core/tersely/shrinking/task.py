"""What a call of shrink is given, and what the model and the small one return to be compared."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import attrs
from torch import Tensor, nn

from tersely.errors import SessionError
from tersely.shrinking.cutting.masked_weights import MaskedWeights
from tersely.shrinking.graph.program import Program, read_program
from tersely.shrinking.proving.inputs import Inputs, compared_inputs
from tersely.shrinking.proving.outputs import (
    Outputs,
    Way,
    count_other_differences,
    describe_difference,
    largest_difference,
    outputs_of,
)
from tersely.shrinking.proving.sizes import of_another_size


@attrs.frozen(eq=False)
class Masked:
    """What the masked model returns.

    Attributes:
        example: of the example, and of random inputs of its sizes.
        elsewhere: of inputs of other sizes; None where the model takes none that is tried.
    """

    example: Outputs
    elsewhere: Outputs | None


class Task:
    """What is shrunk, and what is asked for (mutable: it keeps what the masked model returned).

    Args:
        model: the model.
        example: arguments and keyword arguments of a call.
        source: values of its parameters as masks leave them.
        tensors: its parameters and buffers, by every name.
        names: identity of a parameter or buffer -> its first name.
        round_to: row and column counts of weights that lose some stay multiples.
        approximate: whether constants go that no bias takes over exactly.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Inputs,
        source: MaskedWeights,
        *,
        tensors: Mapping[str, Tensor],
        names: Mapping[int, str],
        round_to: int,
        approximate: bool,
    ) -> None:
        self.model = model
        self.example = example
        self.source = source
        self.tensors = tensors
        self.names = names
        self.round_to = round_to
        self.approximate = approximate
        self._masked: Masked | None = None

    @cached_property
    def elsewhere(self) -> Inputs | None:
        """An example of other sizes, or None where the model takes none that is tried."""
        return of_another_size(self.model, self.example)

    def masked(self, program: Program | None = None) -> Masked:
        """Return what the masked model returns, computed once.

        Args:
            program: its operators with the example, where they are known.
        """
        if self._masked is None:
            values = self.source.masked()
            example = self._outputs(values, self.example, program)
            self._masked = Masked(example, self._elsewhere(values, example.way))
        return self._masked

    def _elsewhere(self, values: Mapping[str, Tensor], way: Way) -> Outputs | None:
        if self.elsewhere is None:
            return None
        try:
            return self._outputs(values, self.elsewhere, way=way)
        except Exception:  # the forward is the user's: what runs as it is may not in float64
            return None

    def error(self, values: Mapping[str, Tensor], program: Program) -> float:
        """Return by how much the small model, as the model is now, differs from the masked one.

        Args:
            values: its parameters that differ.
            program: its operators with the example.

        Raises:
            SessionError: that is too much, unless it was asked to be approximate.
        """
        before = self.masked().example
        after = self._outputs(values, self.example, program, way=before.way)
        error = largest_difference(before.tensors, after.tensors)
        others = count_other_differences(before, after)
        if (error > before.tolerance or others) and not self.approximate:
            raise SessionError(describe_difference(error, before.tolerance, others))
        return error

    def error_elsewhere(self, values: Mapping[str, Tensor]) -> float:
        """Compare them with inputs of other sizes, where there are any.

        Args:
            values: parameters of the small model that differ.

        Returns:
            The largest relative difference; infinity where the small model raises, or where
            integers or booleans differ.
        """
        before = self.masked().elsewhere
        if before is None or self.elsewhere is None:
            return 0.0
        try:
            after = self._outputs(values, self.elsewhere, way=before.way)
        except Exception:  # the forward is the user's, and the masked model ran
            return float("inf")
        if count_other_differences(before, after):
            return float("inf")
        return largest_difference(before.tensors, after.tensors)

    def _outputs(
        self,
        values: Mapping[str, Tensor],
        example: Inputs,
        program: Program | None = None,
        *,
        way: Way | None = None,
    ) -> Outputs:
        """Run the model as it is now with other values of parameters."""
        read = (lambda: self.program(example)) if program is None else (lambda: program)
        return outputs_of(self.model, values, compared_inputs(example), read, way=way)

    def program(self, example: Inputs, *, has_lines: bool = False) -> Program:
        """Return the operators of the model as it is now.

        Args:
            example: arguments and keyword arguments.
            has_lines: whether each operator knows the lines of code that run it.

        Raises:
            SessionError: ``torch.export`` cannot follow the model.
        """
        try:
            return self.read(example, has_lines=has_lines)
        except Exception as error:
            text = str(error).strip().splitlines()
            raise SessionError(
                "shrink() cannot follow the model's forward: torch.export says "
                f"{text[0] if text else type(error).__name__!r}; give example_inputs that the "
                "model runs with, take branches that depend on values out of forward, and "
                "leave caches out (use_cache=False in transformers)"
            ) from error

    def read(self, example: Inputs, *, has_lines: bool = False) -> Program:
        """Return the same, with parameters under the first of their names.

        Raises:
            Exception: whatever ``torch.export`` or the model raises.
        """
        program = read_program(self.model, *example, has_lines=has_lines)
        return attrs.evolve(
            program,
            parameters={node: self._first(name) for node, name in program.parameters.items()},
            written={node: self._first(name) for node, name in program.written.items()},
        )

    def _first(self, name: str) -> str:
        return self.names[id(self.tensors[name])]
