"""The contract of exporters."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from tersely.contracts.exporter import RunsExport
from tersely.errors import CompressionWarning, ExportError
from tersely.exporting.export import Exported, MadeExporter, make_exporter
from tersely.json_value import Json
from tersely.registry.descriptors import ExporterInfo
from tersely.registry.registry import registry
from tersely.session.session import Session
from tersely.testing.contract import Contract, ContractError, Kind, expect, require
from tersely.testing.exporters.cases import ExportCase, example_inputs, export_cases, source_of
from tersely.testing.untouched.modules import untouched_modules
from tersely.testing.untouched.random_state import untouched_random_state

_CLOSE = 0.1  # of the largest output: runtimes sum in another order and may round ties differently


@attrs.frozen(eq=False)
class _Written:
    """A case that was exported.

    Attributes:
        case: the case.
        session: its session.
        exported: the result of the export; None if it was refused.
        folder: the folder of the files.
        touched: what writing changed although it must not; empty if nothing.
    """

    case: ExportCase
    session: Session
    exported: Exported | None
    folder: Path
    touched: str

    @property
    def name(self) -> str:
        """The description of the case."""
        return self.case.name

    def contents(self) -> dict[str, bytes]:
        """Return every file of the folder, by its path in it."""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in files}


@attrs.define(eq=False)
class ExporterContract(Contract):
    """What every exporter must meet: it refuses a model with reasons, or writes a correct file."""

    kind: ClassVar[Kind] = "exporters"

    _kept: list[_Written] = attrs.field(factory=list, init=False)

    @property
    def info(self) -> ExporterInfo:
        """The exporter's descriptor."""
        return registry().exporters.info(self.name)

    def use(self) -> None:
        """Export one session."""
        case = next(export_cases(self.info.holds))
        with tempfile.TemporaryDirectory() as folder:
            self._written(case, case.session(), Path(folder))

    def check_refuses_or_writes(self) -> None:
        """Each model is written, or refused with a reason before that; at least one is written."""
        tried = [(one.name, one.exported) for one in self._tried()]
        names = ", ".join(name for name, _ in tried)
        expect(any(found for _, found in tried), f"every model that was tried was refused: {names}")

    def check_holds(self) -> None:
        """Everything that the descriptor's ``holds`` declares is written, not refused."""
        for one in self._tried():
            holds = one.case.holds
            expect(
                holds is None or one.exported is not None,
                f"{one.name}: holds declares {holds!r}, but the exporter refuses it",
            )

    def check_files(self) -> None:
        """The files it names exist under the expected names, and it leaves no others."""
        expect(
            self.info.suffix == "" or self.info.suffix.startswith("."),
            f"suffix is {self.info.suffix!r}, expected an ending such as '.onnx'",
        )
        for one in self._tried():
            beside = sorted(path.name for path in one.folder.parent.iterdir())
            expect(
                beside == [one.folder.name], f"{one.name}: it wrote outside of its folder: {beside}"
            )
            left = sorted(path.name for path in one.folder.iterdir())
            if one.exported is None:
                expect(not left, f"{one.name}: it was refused, but {left} were written")
                continue
            names = [path.name for path in one.exported.paths]
            main = f"model{self.info.suffix}"
            expect(
                names[0] == main,
                f"{one.name}: the main file is {names[0]}, expected {main}: the path it was given",
            )
            strange = [name for name in names if not name.startswith("model")]
            expect(not strange, f"{one.name}: the names of {strange} do not begin with 'model'")
            expect(
                left == sorted(names), f"{one.name}: it wrote {left} but returned {sorted(names)}"
            )
            expect(all(one.contents().values()), f"{one.name}: a file is empty")

    def check_result(self) -> None:
        """check() returns a non-empty result that can be written as JSON."""
        for one in self._tried():
            if one.exported is not None:
                expect(bool(one.exported.checks), f"{one.name}: check() compared nothing")
                json.dumps(one.exported.to_dict(), allow_nan=False)

    def check_notices(self) -> None:
        """check() refuses the files of a model with other weights, biases or masks."""
        for one in self._tried():
            if one.exported is None:
                continue
            made = make_exporter(self.name, self.arguments)
            for difference, other in one.case.others():
                expect(
                    _is_noticed(made, other, one.exported.paths[0]),
                    f"{one.name}: check() also accepts them for a model with {difference}, so it "
                    "compares too little, or the files contain too little",
                )

    def check_running(self) -> None:
        """A loaded export computes the outputs of the session."""
        made = make_exporter(self.name, self.arguments)
        if not isinstance(made.exporter, RunsExport):
            return
        inputs = example_inputs()
        for one in self._tried():
            if one.exported is None:
                continue
            run = made.exporter.load(one.exported.paths[0], threads=1)
            with torch.no_grad():
                found, expected = _first(run(inputs)), one.session.model(inputs)
            where = f"{one.name}: the loaded export computes"
            same = found.shape == expected.shape
            expect(same, f"{where} {list(found.shape)}, expected {list(expected.shape)}")
            worst = float((found - expected).abs().max() / expected.abs().max())
            expect(worst <= _CLOSE, f"{where} outputs that are off by {worst:.3g} of the largest")

    def check_session_untouched(self) -> None:
        """Exporting leaves the session's model unchanged, including modes, hooks and flags."""
        for one in self._tried():
            expect(not one.touched, one.touched)

    def check_replaces(self) -> None:
        """Exporting again to the same place gives the same files, byte for byte if declared."""
        for one in self._tried():
            if one.exported is None:
                continue
            before = one.contents()
            again = self._export_to(one.session, one.folder)
            expect(again is not None, f"{one.name}: exporting a second time is refused")
            after = one.contents()
            expect(
                list(before) == list(after),
                f"{one.name}: the first time it wrote {list(before)}, the second {list(after)}",
            )
            if not self.info.is_reproducible:
                continue
            other = [name for name, data in before.items() if after[name] != data]
            expect(not other, f"{one.name}: the bytes of {other} differ the second time")

    def _tried(self) -> Sequence[_Written]:
        # Files are written once for all checks: some formats take seconds.
        if not self._kept:
            root = Path(tempfile.mkdtemp())
            weakref.finalize(self, shutil.rmtree, root, ignore_errors=True)
            self._kept = [
                self._written(case, case.session(), root / str(number))
                for number, case in enumerate(export_cases(self.info.holds))
            ]
        return self._kept

    def _written(self, case: ExportCase, session: Session, root: Path) -> _Written:
        folder = root / "folder"
        folder.mkdir(parents=True)
        model = session.model.train()  # a mode that exporting has to change and to give back
        before = {key: one.clone() for key, one in model.state_dict().items()}
        arguments = copy.deepcopy(dict(self.arguments))
        made: list[Exported | None] = []
        touched = ""
        try:
            with untouched_modules(model), untouched_random_state():
                made.append(self._export_to(session, folder))
        except ContractError as error:
            if not made:
                raise ContractError(f"{case.name}: {error}") from error
            touched = str(error)
        after = model.state_dict()
        if list(before) != list(after) or any(
            not torch.equal(one, after[key]) for key, one in before.items()
        ):
            touched = f"{case.name}: exporting changed the model"
        elif arguments != self.arguments:
            touched = f"{case.name}: exporting changed the options"
        model.eval()
        return _Written(case, session, made[0], folder, touched)

    def _export_to(self, session: Session, folder: Path) -> Exported | None:
        try:
            with warnings.catch_warnings():
                # A format may warn about what its runtime does slowly.
                warnings.simplefilter("ignore", CompressionWarning)
                return session.export(
                    self.name, f"{folder}/", example_inputs=example_inputs(), options=self.arguments
                )
        except ExportError as error:
            known = {None, *(one.name for one in session.plan)}
            for refusal in error.refusals:
                expect(bool(refusal.reason.strip()), "a refusal has no reason")
                expect(
                    refusal.target in known,
                    f"a refusal names {refusal.target}, which is not a target of the plan",
                )
            self._expect_refused_first(session, error)
            return None

    def _expect_refused_first(self, session: Session, error: ExportError) -> None:
        made = make_exporter(self.name, self.arguments)
        named = {one.target for one in made.exporter.refusals(source_of(session))}
        expect(
            bool(named),
            f"refusals() returns nothing, but writing or checking fails: {error}",
        )


def _is_noticed(made: MadeExporter, other: Session, path: Path) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CompressionWarning)
            made.exporter.check(source_of(other), path)
    except ExportError:
        return True
    return False


def _first(found: Any) -> Tensor:
    while isinstance(found, list | tuple | Mapping):
        found = next(iter(found.values() if isinstance(found, Mapping) else found))
    return torch.as_tensor(found)


def check_exporter(name: str, *, options: Mapping[str, Json] | None = None) -> None:
    """Run the whole contract of an exporter.

    Args:
        name: its name in the registry.
        options: options to make it with.

    Raises:
        ContractError: lists every check that failed.
        PluginError: no plugin provides the name.
    """
    require(ExporterContract(name, options or {}))
