"""The arguments of a call of shrink, and the outputs of both models to compare."""

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
    """The outputs of the masked model.

    Attributes:
        example: those for the example, and for random inputs of its sizes.
        elsewhere: those for inputs of other sizes; None if the model accepts none of those tried.
    """

    example: Outputs
    elsewhere: Outputs | None


class Task:
    """The model to shrink, and the options (mutable: it keeps the outputs of the masked model).

    Args:
        model: the model.
        example: arguments and keyword arguments of a call.
        source: the masked values of its parameters.
        tensors: its parameters and buffers, by every name.
        names: identity of a parameter or buffer -> its first name.
        round_to: the row and column counts of weights that lose some remain multiples of this.
        approximate: whether to remove constants that no bias takes over exactly.
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
        """An example of other sizes, or None if the model accepts none of those tried."""
        return of_another_size(self.model, self.example)

    def masked(self, program: Program | None = None) -> Masked:
        """Return the outputs of the masked model, computed once.

        Args:
            program: its operators with the example, if they are known.
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
        except Exception:  # the forward is the user's, and may not run in float64
            return None

    def error(self, values: Mapping[str, Tensor], program: Program) -> float:
        """Return the difference between the masked model and the small one.

        Args:
            values: its parameters with other values.
            program: its operators with the example.

        Raises:
            SessionError: the difference is too large, and ``approximate`` is False.
        """
        before = self.masked().example
        after = self._outputs(values, self.example, program, way=before.way)
        error = largest_difference(before.tensors, after.tensors)
        others = count_other_differences(before, after)
        if (error > before.tolerance or others) and not self.approximate:
            raise SessionError(describe_difference(error, before.tolerance, others))
        return error

    def error_elsewhere(self, values: Mapping[str, Tensor]) -> float:
        """Compare them for inputs of other sizes, if there are any.

        Args:
            values: parameters of the small model with other values.

        Returns:
            The largest relative difference; infinity if the small model raises, or if integers or
            booleans differ.
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
        """Run the present model with other values of parameters."""
        read = (lambda: self.program(example)) if program is None else (lambda: program)
        return outputs_of(self.model, values, compared_inputs(example), read, way=way)

    def program(self, example: Inputs, *, has_lines: bool = False) -> Program:
        """Return the operators of the present model.

        Args:
            example: arguments and keyword arguments.
            has_lines: whether operators have the lines of code that run them.

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
        """Return the same, with the first name of each parameter.

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
