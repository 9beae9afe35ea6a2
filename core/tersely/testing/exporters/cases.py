"""Sessions that the contract of exporters exports, and variants that differ in one way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from tersely.contracts.exporter import ExportSource
from tersely.exporting.source import make_source
from tersely.json_value import Json
from tersely.session.attaching import attach
from tersely.session.session import Session
from tersely.testing.exporters.plugins import (
    BETWEEN,
    BY_CHANNEL,
    FACTORS,
    LEVELS,
    MAGNITUDE,
    NEAREST,
    NUMBERED,
    OTHER_FACTORS,
    OTHER_LEVELS,
    case_plugins,
)


@attrs.frozen(eq=False)
class ExportCase:
    """A way to prune and quantize two linear layers.

    Attributes:
        name: a description.
        recipe: returns the stages; called with whether to return the variant.
        holds: what an exporter has to declare for it, see `tersely.ExporterInfo`; None for what
            any format may hold.
        varies: what else the variant changes, with the same weights.
    """

    name: str
    recipe: Callable[[bool], Mapping[str, Json]]
    holds: str | None = None
    varies: str = ""

    def session(
        self, change: Callable[[nn.Module], None] | None = None, *, is_other: bool = False
    ) -> Session:
        """Return the compressed session; the same at every call.

        Args:
            change: changes the model before it is compressed.
            is_other: whether to use the variant.
        """
        generator = torch.Generator().manual_seed(0)
        # Some formats use blocks of 32 inputs.
        model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            if change is not None:
                change(model)
        with case_plugins():
            session = attach(model, self.recipe(is_other))
            session.calibrate([example_inputs()])
            session.compress()
        return session

    def others(self) -> Iterator[tuple[str, Session]]:
        """Yield a description of the difference and a session that differs from the first."""
        yield "a row of a weight with its signs flipped", self.session(_turn_a_row)
        yield "weights twice as large", self.session(_double)
        yield "another bias", self.session(_shift_biases)
        if self.varies:
            yield f"another {self.varies}", self.session(is_other=True)


def export_cases(holds: Sequence[str]) -> Iterator[ExportCase]:
    """Yield the cases that an exporter is tried with.

    Args:
        holds: the optional contents that it declares.
    """
    return (case for case in _CASES if case.holds is None or case.holds in holds)


def example_inputs() -> Tensor:
    """Return inputs of the model of every case, shape (4, 32)."""
    return torch.randn(4, 32, generator=torch.Generator().manual_seed(1))


def source_of(session: Session) -> ExportSource:
    """Return a session as exporters receive it.

    Args:
        session: a session of a case.
    """
    values = session._values
    return make_source(
        session.model,
        values.making_integers(),
        session.plan.targets,
        example_inputs=example_inputs(),
        norms=values.norms,
    )


def _turn_a_row(model: nn.Module) -> None:
    model.get_parameter("0.weight")[1].neg_()


def _double(model: nn.Module) -> None:
    model.get_parameter("0.weight").mul_(2)


def _shift_biases(model: nn.Module) -> None:
    model.get_parameter("0.bias").add_(1)


def _stage(algorithm: str, **keys: Any) -> dict[str, Json]:
    entry: dict[str, Json] = {"op_types": ["Linear"], "target_names": ["weight"], **keys}
    return {"algorithm": algorithm, "config_list": [entry]}


def _quantized(*stages: Mapping[str, Json]) -> Callable[[bool], Mapping[str, Json]]:
    return lambda _: {"quantization": list(stages)}


def _by_levels(is_other: bool) -> Mapping[str, Json]:
    return {"quantization": _stage(OTHER_LEVELS if is_other else LEVELS, quant_dtype="uint2")}


def _by_factors(is_other: bool) -> Mapping[str, Json]:
    return {"quantization": _stage(OTHER_FACTORS if is_other else FACTORS)}


def _masked(names: Sequence[str]) -> Callable[[bool], Mapping[str, Json]]:
    # The first weight is quantized, and those of the names are masked.
    def recipe(is_other: bool) -> Mapping[str, Json]:
        ratio = 0.25 if is_other else 0.5
        return {
            "pruning": _stage(MAGNITUDE, op_names=names, sparse_ratio=ratio),
            "quantization": _stage(NEAREST, op_names=["0"]),
        }

    return recipe


_AFFINE_INPUT: Mapping[str, Json] = {
    "_input_": {"quant_dtype": "uint8", "quant_scheme": "affine"},
}
_CASES = (
    ExportCase("int8 weights", _quantized(_stage(NEAREST))),
    ExportCase(
        "uint8 affine weights",
        _quantized(_stage(NEAREST, quant_dtype="uint8", quant_scheme="affine")),
    ),
    ExportCase("int8 weights by output channel", _quantized(_stage(BY_CHANNEL))),
    ExportCase("int4 weights", _quantized(_stage(NEAREST, quant_dtype="int4"))),
    ExportCase(
        "int8 weights and uint8 inputs",
        _quantized(
            _stage(NEAREST, target_names=["_input_", "weight"], target_settings=_AFFINE_INPUT)
        ),
    ),
    ExportCase(
        "int8 weights by output channel, inputs and outputs",
        _quantized(
            _stage(NEAREST, target_names=["_input_", "_output_"], quant_dtype="int8"),
            _stage(BY_CHANNEL),
        ),
    ),
    ExportCase("masked int8 weights", _masked(["0"]), varies="mask"),
    ExportCase("masked weights and int8 weights", _masked(["2"]), varies="mask"),
    ExportCase("weights whose inputs have factors", _by_factors, varies="set of factors"),
    ExportCase(
        "weights with a table of levels", _by_levels, holds="levels", varies="table of levels"
    ),
    ExportCase(
        "weights with zero points between integers",
        _quantized(_stage(BETWEEN, quant_dtype="uint8", quant_scheme="affine")),
        holds="float_zero_points",
    ),
    ExportCase(
        "weights with a scale for each numbered block",
        _quantized(_stage(NEAREST, granularity=NUMBERED)),
        holds="numbered_blocks",
    ),
)
