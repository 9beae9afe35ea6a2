"""A pruner of the suite's own, because the core is tested without any plugin."""

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest


@pytest.fixture
def toy_pruners() -> Iterator[None]:
    """Register ``toy`` (every weight alone) and ``toy_rows`` (output channels), by magnitude."""
    import laconic

    class Magnitude:
        def importance(self, target: laconic.PruningTarget) -> object:
            return target.tensor.abs()

    class Face:
        @laconic.hookimpl
        def laconic_pruners(self) -> list[laconic.PrunerInfo]:
            reference = "laconic_toy:Magnitude"
            return [
                laconic.PrunerInfo(name="toy", implementation=reference),
                laconic.PrunerInfo(
                    name="toy_rows",
                    implementation=reference,
                    default_granularity="output_channel",
                ),
            ]

        @laconic.hookimpl
        def laconic_schedules(self) -> list[laconic.ScheduleInfo]:
            return [laconic.ScheduleInfo(name="toy_line", implementation="laconic_toy:line")]

        @laconic.hookimpl
        def laconic_exporters(self) -> list[laconic.ExporterInfo]:
            return [laconic.ExporterInfo(name="toy_names", implementation="laconic_toy:Names")]

    class Names:
        def export(self, model: object, session: object, directory: object) -> None:
            (directory / "names.txt").write_text("\n".join(model.state_dict()))

    module = ModuleType("laconic_toy")
    module.Magnitude, module.Names, module.line = Magnitude, Names, lambda progress: progress
    sys.modules["laconic_toy"] = module
    name = laconic.registry().register(Face(), name="laconic-toy")
    yield
    laconic.registry().unregister(name)
    del sys.modules["laconic_toy"]
