"""A state dict of torchao's tensors, with which PyTorch's layers use torchao's kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import torch
from torch import Tensor

import tersely
from tersely_export.for_torchao.schemes import (
    as_ours,
    inputs_of,
    refused_activations,
    refused_weights,
    static_inputs,
)
from tersely_export.libraries import need_libraries
from tersely_export.masks import refused_masks
from tersely_export.names import first_names, kept_floats


@attrs.frozen
class Torchao:
    """Writes a file for `torch.load`; the check runs every layer and the model with it.

    Attributes:
        least_cosine: the least cosine between the outputs of torchao and of the session.
    """

    least_cosine: float = 0.98

    def __attrs_post_init__(self) -> None:
        """Check that the library is installed before anything is computed."""
        need_libraries("torchao", "torchao")

    def refusals(self, source: tersely.ExportSource) -> Sequence[tersely.Refusal]:
        """Return the targets for which torchao has no tensor.

        Args:
            source: the session.
        """
        found = [*refused_weights(source), *refused_activations(source), *refused_masks(source)]
        if not found and source.example_inputs is None:
            reason = (
                "its scale gets as many dimensions as its input, which one call of the model "
                "shows; give example_inputs"
            )
            found += [tersely.Refusal(reason, one.name) for one in static_inputs(source)]
        return found

    def write(self, source: tersely.ExportSource, path: Path) -> Sequence[Path]:
        """Write the state dict.

        Args:
            source: the session.
            path: the file.
        """
        # Late: asking for refusals, as a job does at its start, needs no torchao.
        from tersely_export.for_torchao.tensors import dimensions_of_inputs, make_tensor

        source.tell("make torchao's tensors")
        state: dict[str, Tensor] = {name: source.floats[name] for name in kept_floats(source)}
        given = inputs_of(source)
        dimensions = dimensions_of_inputs(source) if static_inputs(source) else {}
        for name, weight in source.integers.items():
            module = source.targets[name].module
            state[name] = make_tensor(
                as_ours(source, name, weight), given.get(module), dimensions.get(module, 0)
            )
        for further, first in first_names(source.model).items():
            if first in state:
                state[further] = state[first]
        source.tell("write the file")
        with path.open("wb") as stream:
            torch.save(state, stream)
        return [path]

    def check(self, source: tersely.ExportSource, path: Path) -> Mapping[str, object]:
        """Load the tensors, and compare their integers, each layer's outputs and the model's.

        Args:
            source: the session.
            path: the file.

        Raises:
            ExportError: a weight differs, or torchao's outputs differ.
        """
        # Late, as in `write`.
        from tersely_export.for_torchao.round_trip import check_state

        return check_state(source, path, least_cosine=self.least_cosine)
