"""Sessions that the contract of exporters tries to write, and others that differ in one way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from tersely.arithmetic.blocks import Blocks
from tersely.arithmetic.qparams import QParams
from tersely.arithmetic.scales import choose_qparams
from tersely.contracts.exporter import ExportSource
from tersely.contracts.pruner import PruningTarget
from tersely.contracts.quantized_grids import UsesFloatZeroPoints, UsesLevels
from tersely.contracts.quantizer import QuantizationTarget
from tersely.contracts.target_plan import TargetPlan
from tersely.exporting.source import make_source
from tersely.json_value import Json
from tersely.registry.descriptors import GranularityInfo, PrunerInfo, QuantizerInfo
from tersely.registry.hookspecs import hookimpl
from tersely.registry.registry import registry
from tersely.session.opening import attach
from tersely.session.session import Session

_NEAREST = "contract_nearest"
_BY_CHANNEL = "contract_nearest_by_channel"
_LEVELS = "contract_levels"
_OTHER_LEVELS = "contract_other_levels"
_BETWEEN = "contract_between"
_MAGNITUDE = "contract_magnitude"
_NUMBERED = "contract_numbered"


@attrs.frozen(eq=False)
class ExportCase:
    """A way to prune and quantize two linear layers.

    Attributes:
        name: what it is.
        recipe: the stages; called with whether they are to be those that vary.
        holds: what an exporter has to declare for it, see `tersely.ExporterInfo`; None for what
            any format may hold.
        varies: what else of it varies, with the same weights.
    """

    name: str
    recipe: Callable[[bool], Mapping[str, Json]]
    holds: str | None = None
    varies: str = ""

    def session(
        self, change: Callable[[nn.Module], None] | None = None, *, is_other: bool = False
    ) -> Session:
        """Return the session, with scales in force; the same at every call.

        Args:
            change: changes the model before it is compressed.
            is_other: whether what varies is another one.
        """
        generator = torch.Generator().manual_seed(0)
        # Some formats have blocks of 32 along the inputs.
        model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            if change is not None:
                change(model)
        with _plugins():
            session = attach(model, self.recipe(is_other))
            session.calibrate([example_inputs()])
            session.compress()
        return session

    def others(self) -> Iterator[tuple[str, Session]]:
        """Yield sessions that differ from the first one, and in what."""
        yield "a row of a weight with other signs", self.session(_turn_a_row)
        yield "weights twice as large", self.session(_double)
        yield "another bias", self.session(_shift_biases)
        if self.varies:
            yield f"another {self.varies}", self.session(is_other=True)


def export_cases(holds: Sequence[str]) -> Iterator[ExportCase]:
    """Yield what an exporter is tried with.

    Args:
        holds: what it declares to hold beside the ordinary.
    """
    return (case for case in _CASES if case.holds is None or case.holds in holds)


def example_inputs() -> Tensor:
    """Return inputs of the model of every case, shape (4, 32)."""
    return torch.randn(4, 32, generator=torch.Generator().manual_seed(1))


def source_of(session: Session) -> ExportSource:
    """Return a session as exporters see it.

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


class Nearest:
    """A quantizer that rounds to nearest with the specification's own scales."""


class Levels(UsesLevels):
    """A quantizer with a table of four levels that are no whole steps."""

    table: tuple[float, ...] = (-1.0, -0.25, 0.125, 1.0)

    def choose(self, low: Tensor, high: Tensor, target: QuantizationTarget) -> QParams:
        """Return the largest magnitude of each block as its scale.

        Args:
            low: the least value of each block.
            high: the largest value of each block.
            target: the target.
        """
        chosen = choose_qparams(low, high, target)
        scale = torch.maximum(-low, high).reshape(chosen.scale.shape)
        return chosen.evolve(scale=scale, levels=torch.tensor(self.table))


class OtherLevels(Levels):
    """The same thresholds between other levels, so that indices are the same."""

    table = (-0.95, -0.3, 0.175, 0.95)


class Between(UsesFloatZeroPoints):
    """A quantizer whose zero points lie half a step beside whole ones."""

    def choose(self, low: Tensor, high: Tensor, target: QuantizationTarget) -> QParams:
        """Return the specification's scales, and zero points between integers.

        Args:
            low: the least value of each block.
            high: the largest value of each block.
            target: the target.
        """
        chosen = choose_qparams(low, high, target)
        return chosen.evolve(zero_point=chosen.zero_point.float() + 0.5)


class Magnitude:
    """A pruner of small weights."""

    def importance(self, target: PruningTarget) -> Tensor:
        """Return magnitudes.

        Args:
            target: the target.
        """
        return target.tensor.detach().abs()


class Numbered:
    """A granularity of two blocks: the elements at even places, and the others."""

    def blocks(self, shape: tuple[int, ...], target: TargetPlan) -> Blocks:
        """Return the blocks.

        Args:
            shape: the target's shape.
            target: the target.
        """
        return Blocks(index=torch.arange(shape[-1]).remainder(2).expand(shape))


class _Face:
    @hookimpl
    def tersely_quantizers(self) -> list[QuantizerInfo]:
        def info(name: str, implementation: str, granularity: str) -> QuantizerInfo:
            return QuantizerInfo(
                name=name,
                implementation=f"{__name__}:{implementation}",
                needs="activations",
                summary="Rounds to nearest.",
                default_granularity=granularity,
            )

        return [
            info(_NEAREST, "Nearest", "tensor"),
            info(_BY_CHANNEL, "Nearest", "output_channel"),
            info(_LEVELS, "Levels", "tensor"),
            info(_OTHER_LEVELS, "OtherLevels", "tensor"),
            info(_BETWEEN, "Between", "tensor"),
        ]

    @hookimpl
    def tersely_pruners(self) -> list[PrunerInfo]:
        reference = f"{__name__}:Magnitude"
        return [PrunerInfo(name=_MAGNITUDE, implementation=reference, summary="Magnitude.")]

    @hookimpl
    def tersely_granularities(self) -> list[GranularityInfo]:
        reference = f"{__name__}:Numbered"
        return [GranularityInfo(name=_NUMBERED, implementation=reference, summary="Even and odd.")]


@contextmanager
def _plugins() -> Iterator[None]:
    # The contract holds wherever the core is, also without any other plugin installed.
    name = registry().register(_Face(), name="tersely-contract")
    try:
        yield
    finally:
        registry().unregister(name)


def _stage(algorithm: str, **keys: Any) -> dict[str, Json]:
    entry: dict[str, Json] = {"op_types": ["Linear"], "target_names": ["weight"], **keys}
    return {"algorithm": algorithm, "config_list": [entry]}


def _quantized(*stages: Mapping[str, Json]) -> Callable[[bool], Mapping[str, Json]]:
    return lambda _: {"quantization": list(stages)}


def _by_levels(is_other: bool) -> Mapping[str, Json]:
    return {"quantization": _stage(_OTHER_LEVELS if is_other else _LEVELS, quant_dtype="uint2")}


def _masked(names: Sequence[str]) -> Callable[[bool], Mapping[str, Json]]:
    # The first weight is quantized, and those of the names are masked.
    def recipe(is_other: bool) -> Mapping[str, Json]:
        ratio = 0.25 if is_other else 0.5
        return {
            "pruning": _stage(_MAGNITUDE, op_names=names, sparse_ratio=ratio),
            "quantization": _stage(_NEAREST, op_names=["0"]),
        }

    return recipe


_AFFINE_INPUT: Mapping[str, Json] = {
    "_input_": {"quant_dtype": "uint8", "quant_scheme": "affine"},
}
_CASES = (
    ExportCase("int8 weights", _quantized(_stage(_NEAREST))),
    ExportCase(
        "uint8 affine weights",
        _quantized(_stage(_NEAREST, quant_dtype="uint8", quant_scheme="affine")),
    ),
    ExportCase("int8 weights by output channel", _quantized(_stage(_BY_CHANNEL))),
    ExportCase("int4 weights", _quantized(_stage(_NEAREST, quant_dtype="int4"))),
    ExportCase(
        "int8 weights and uint8 inputs",
        _quantized(
            _stage(_NEAREST, target_names=["_input_", "weight"], target_settings=_AFFINE_INPUT)
        ),
    ),
    ExportCase(
        "int8 weights by output channel, inputs and outputs",
        _quantized(
            _stage(_NEAREST, target_names=["_input_", "_output_"], quant_dtype="int8"),
            _stage(_BY_CHANNEL),
        ),
    ),
    ExportCase("masked int8 weights", _masked(["0"]), varies="mask"),
    ExportCase("masked weights beside int8 ones", _masked(["2"]), varies="mask"),
    ExportCase(
        "weights with a table of levels", _by_levels, holds="levels", varies="table of levels"
    ),
    ExportCase(
        "weights with zero points between integers",
        _quantized(_stage(_BETWEEN, quant_dtype="uint8", quant_scheme="affine")),
        holds="float_zero_points",
    ),
    ExportCase(
        "weights with a scale for each numbered block",
        _quantized(_stage(_NEAREST, granularity=_NUMBERED)),
        holds="numbered_blocks",
    ),
)
