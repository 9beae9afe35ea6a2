"""The contract of exporters."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

from tersely.errors import ExportError
from tersely.exporting.export import Exported
from tersely.json_value import Json
from tersely.registry.descriptors import QuantizerInfo
from tersely.registry.hookspecs import hookimpl
from tersely.registry.registry import registry
from tersely.session.opening import attach
from tersely.session.session import Session
from tersely.testing.contract import Contract, Kind, expect, require

_QUANTIZER = "contract_nearest"
_BY_CHANNEL = "contract_nearest_by_channel"

_SETTINGS: Mapping[str, tuple[list[str], dict[str, Json]]] = {
    "int8 weights": (["weight"], {}),
    "uint8 affine weights": (["weight"], {"quant_dtype": "uint8", "quant_scheme": "affine"}),
    "int4 weights": (["weight"], {"quant_dtype": "int4"}),
    "int8 weights and uint8 inputs": (
        ["_input_", "weight"],
        {"target_settings": {"_input_": {"quant_dtype": "uint8", "quant_scheme": "affine"}}},
    ),
    "int8 weights by output channel, inputs and outputs": (
        ["_input_", "_output_"],
        {"quant_dtype": "int8"},
    ),
}
"""What is tried, as target names of linear layers and further keys of their entry; where no weight
is among them, a stage of its own quantizes it by output channel."""


class Nearest:
    """A quantizer that rounds to nearest with the specification's own scales."""


class _Face:
    @hookimpl
    def tersely_quantizers(self) -> list[QuantizerInfo]:
        return [
            QuantizerInfo(
                name=name,
                implementation=f"{__name__}:Nearest",
                needs="activations",
                summary="Rounds to nearest.",
                default_granularity=granularity,
            )
            for name, granularity in ((_QUANTIZER, "tensor"), (_BY_CHANNEL, "output_channel"))
        ]


@attrs.define(eq=False)
class ExporterContract(Contract):
    """What every exporter must meet: it refuses by name, or writes what its consumer confirms."""

    kind: ClassVar[Kind] = "exporters"

    def check_refuses_or_writes(self) -> None:
        """A model is refused with a reason, or written and confirmed; one at least is written."""
        written = [name for name, found in self._tried() if found is not None]
        expect(bool(written), f"every model that was tried is refused: {', '.join(_SETTINGS)}")

    def check_files(self) -> None:
        """What it says that it wrote is there, and it left nothing beside it."""
        with tempfile.TemporaryDirectory() as folder:
            for name, session in _sessions():
                found = self._export(session, Path(folder) / name / "model")
                if found is None:
                    continue
                expect(found.bytes > 0, f"{name}: the files are empty")
                left = {path.name for path in (Path(folder) / name).iterdir()}
                known = {path.name for path in found.paths}
                expect(left == known, f"{name}: it wrote {sorted(left)} and named {sorted(known)}")

    def check_result(self) -> None:
        """What check() returns is not empty and JSON."""
        for name, found in self._tried():
            if found is not None:
                expect(bool(found.checks), f"{name}: check() compared nothing")
                json.dumps(found.to_dict(), allow_nan=False)

    def check_session_untouched(self) -> None:
        """The session's model is as it was, bit for bit."""
        with tempfile.TemporaryDirectory() as folder:
            for name, session in _sessions():
                before = {key: one.clone() for key, one in session.model.state_dict().items()}
                self._export(session, Path(folder) / "model")
                after = session.model.state_dict()
                same = list(before) == list(after) and all(
                    torch.equal(one, after[key]) for key, one in before.items()
                )
                expect(same, f"{name}: exporting changed the model")

    def check_replaces(self) -> None:
        """Exporting again to the same place gives the same files."""
        with tempfile.TemporaryDirectory() as folder:
            for name, session in _sessions():
                found = self._export(session, Path(folder) / "model")
                again = self._export(session, Path(folder) / "model")
                if found is not None and again is not None:
                    expect(found.paths == again.paths, f"{name}: {found.paths}, then {again.paths}")

    def _tried(self) -> Iterator[tuple[str, Exported | None]]:
        with tempfile.TemporaryDirectory() as folder:
            for name, session in _sessions():
                yield name, self._export(session, Path(folder) / "model")

    def _export(self, session: Session, path: Path) -> Exported | None:
        try:
            return session.export(self.name, path, example_inputs=_inputs(), options=self.arguments)
        except ExportError as error:
            known = {None, *(one.name for one in session.plan)}
            for refusal in error.refusals:
                expect(bool(refusal.reason.strip()), "a refusal has no reason")
                expect(
                    refusal.target in known,
                    f"a refusal names {refusal.target}, which is no target of the plan",
                )
            return None


def _sessions() -> Iterator[tuple[str, Session]]:
    for name, (targets, entry) in _SETTINGS.items():
        with _quantizer():
            session = _session(targets, entry)
        yield name, session


def _session(targets: list[str], entry: Mapping[str, Json]) -> Session:
    generator = torch.Generator().manual_seed(0)
    # Some formats have blocks of 32 along the inputs.
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    stages = [_stage(_QUANTIZER, targets, entry)]
    if "weight" not in targets:
        stages.append(_stage(_BY_CHANNEL, ["weight"], {}))
    session = attach(model, {"quantization": stages})
    if "_input_" in targets:
        session.calibrate([_inputs()])
    session.compress()
    return session


def _stage(algorithm: str, targets: list[str], entry: Mapping[str, Json]) -> dict[str, Json]:
    config: dict[str, Json] = {"op_types": ["Linear"], "target_names": targets, **entry}
    return {"algorithm": algorithm, "config_list": [config]}


def _inputs() -> Tensor:
    return torch.randn(4, 32, generator=torch.Generator().manual_seed(1))


@contextmanager
def _quantizer() -> Iterator[None]:
    # The contract holds wherever the core is, also without any quantizer installed.
    name = registry().register(_Face(), name="tersely-contract")
    try:
        yield
    finally:
        registry().unregister(name)


def check_exporter(name: str, *, options: Mapping[str, Json] | None = None) -> None:
    """Run the whole contract of an exporter.

    Args:
        name: its name in the registry.
        options: options to make it with.

    Raises:
        ContractError: lists every check that failed.
        PluginError: nobody provides the name.
    """
    require(ExporterContract(name, options or {}))
