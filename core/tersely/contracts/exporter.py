"""Exporters, and the view of a session that they write in another format."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import attrs
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from tersely.arithmetic.qparams import QParams
from tersely.contracts.abilities import Ability
from tersely.contracts.target_plan import TargetPlan
from tersely.errors import ExportError, Refusal
from tersely.json_value import Json


class IntegerWeight(Protocol):
    """A quantized parameter as integers, as `Session.integer_weights` returns it."""

    @property
    def values(self) -> Tensor:
        """The integers, the parameter's shape, in the smallest type that holds them."""
        ...

    @property
    def qparams(self) -> QParams:
        """The scales and zero points with which they are read."""
        ...

    @property
    def input_scale(self) -> Tensor | None:
        """None, or the divisors of input channels, shape (inputs,)."""
        ...

    @property
    def input_dim(self) -> int:
        """The dimension of input channels."""
        ...

    @property
    def divides_weight(self) -> bool:
        """Whether the weight is divided by ``input_scale`` instead of the module's input."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The parameter's own type."""
        ...

    def dequantize(self) -> Tensor:
        """Return the weight that forward computes with, bit for bit."""
        ...


@attrs.frozen(kw_only=True, eq=False)
class QuantizedActivation:
    """A quantized input or output.

    Attributes:
        name: the target's full name, as in ``encoder.0._input_``.
        module: the module's full name.
        is_input: whether it is an input.
        dtype: the quantized type, such as ``uint8``.
        scheme: ``symmetric`` or ``affine``.
        quant_min: the smallest integer.
        quant_max: the largest integer.
        blocks: the elements that share a scale: the ``tensor``, a ``channel``, a ``token`` (a row
            along the last dimension), or blocks of a ``fixed`` size.
        is_dynamic: whether its scale is computed from each call's own values.
        qparams: its scale and zero point, or None if it is dynamic.
    """

    name: str
    module: str
    is_input: bool
    dtype: str
    scheme: str
    quant_min: int
    quant_max: int
    blocks: Literal["tensor", "channel", "token", "fixed"]
    is_dynamic: bool
    qparams: QParams | None = None


def _tell_nobody(title: str) -> None:
    """Report nothing: outside of an export there is no progress to show."""


@attrs.frozen(kw_only=True, eq=False, slots=False)
class ExportSource:
    """The view of a session for exporters, which must not modify it.

    Attributes:
        model: the session's model, instrumented or finished, in its own mode.
        targets: full name -> the planned target, for every quantized target.
        integers: full name -> integers, for every quantized parameter and buffer; computed on each
            read.
        activations: every quantized input and output.
        masked_activations: full name of every input and output that a mask changes in each call;
            graphs hold such masks, and tensors of a model's own class do not.
        folded_activations: path of a layer -> the activation that is folded into it, which the
            layer's forward applies last; a runtime that computes the layer alone does not.
        example_inputs: a tensor, a tuple or list of arguments, a mapping of keyword arguments, or
            None if the caller gave none.
        make_floats: the function that `floats` calls.
        make_program: the function that `program` calls.
        simulate: calls the session's model in evaluation mode, without gradients, with inputs like
            ``example_inputs``.
        runtimes: the runtimes that the presets of its stages name, ``for: openvino``.
        tell: to be called with a verb phrase, such as ``translate the graph``, when a part of
            writing or checking begins that may take long; a job shows it as progress.
    """

    model: nn.Module
    targets: Mapping[str, TargetPlan]
    integers: Mapping[str, IntegerWeight]
    activations: Sequence[QuantizedActivation]
    masked_activations: Sequence[str] = ()
    folded_activations: Mapping[str, Callable[[Tensor], Tensor]] = attrs.field(factory=dict)
    example_inputs: Any
    make_floats: Callable[[], Mapping[str, Tensor]]
    make_program: Callable[[], ExportedProgram]
    simulate: Callable[[Any], Any]
    runtimes: Sequence[str] = ()
    tell: Callable[[str], object] = _tell_nobody

    @cached_property
    def floats(self) -> Mapping[str, Tensor]:
        """The other tensors of a finished model, under the user's names, detached.

        They are masked, and a folded norm is part of its layer. A tied tensor has all of its names.
        Each is computed on each read.
        """
        return self.make_floats()

    @cached_property
    def program(self) -> ExportedProgram:
        """The session as one graph, see `Session.export_program`; made on first use.

        Raises:
            ExportError: there are no example inputs, or no program can be made.
        """
        if self.example_inputs is None:
            raise ExportError(
                "this format is written from one call of the model; give example_inputs, or in a "
                "job data.example or data.calibration"
            )
        return self.make_program()


@runtime_checkable
class Exporter(Protocol):
    """Writes a session in one format; made with its options as keyword arguments.

    `refusals` is called first. `write` gets a path in a scratch folder, from which files are moved
    into place after `check` has passed; existing files stay until then.
    """

    def refusals(self, source: ExportSource) -> Sequence[Refusal]:
        """Return the targets that the format cannot hold; nothing has been written yet.

        Args:
            source: the session.
        """
        ...

    def write(self, source: ExportSource, path: Path) -> Sequence[Path]:
        """Write the format and return the files or folders, the main one first.

        Args:
            source: the session.
            path: the main file or folder; others are next to it, and their names begin with its
                name.
        """
        ...

    def check(self, source: ExportSource, path: Path) -> Mapping[str, Json]:
        """Read the files with the format's consumer and compare them with the session.

        Args:
            source: the session.
            path: the main file or folder.

        Returns:
            The results of the comparison, as data for the report.

        Raises:
            ExportError: the consumer reads or computes other values.
        """
        ...


class RunsExport(Ability):
    """An exporter whose format can be run here, so that a job can measure it."""

    @abstractmethod
    def load(self, path: Path, *, threads: int) -> Callable[..., object]:
        """Return a function that runs a written file in its consumer, called like the model.

        Args:
            path: the main file or folder.
            threads: the number of threads that it may use.
        """
