"""A pruner of the suite's own, because the core is tested without any plugin."""

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest


@pytest.fixture
def toy_pruners() -> Iterator[None]:
    """Register ``toy`` (every weight alone) and ``toy_rows`` (output channels), by magnitude."""
    import tersely

    class Magnitude:
        def importance(self, target: tersely.PruningTarget) -> object:
            return target.tensor.abs()

    class Face:
        @tersely.hookimpl
        def tersely_pruners(self) -> list[tersely.PrunerInfo]:
            reference = "tersely_toy:Magnitude"
            return [
                tersely.PrunerInfo(name="toy", implementation=reference),
                tersely.PrunerInfo(
                    name="toy_rows",
                    implementation=reference,
                    default_granularity="output_channel",
                ),
            ]

        @tersely.hookimpl
        def tersely_schedules(self) -> list[tersely.ScheduleInfo]:
            return [tersely.ScheduleInfo(name="toy_line", implementation="tersely_toy:line")]

        @tersely.hookimpl
        def tersely_exporters(self) -> list[tersely.ExporterInfo]:
            return [tersely.ExporterInfo(name="toy_names", implementation="tersely_toy:Names")]

    class Names:
        def export(self, model: object, session: object, directory: object) -> None:
            (directory / "names.txt").write_text("\n".join(model.state_dict()))

    module = ModuleType("tersely_toy")
    module.Magnitude, module.Names, module.line = Magnitude, Names, lambda progress: progress
    sys.modules["tersely_toy"] = module
    name = tersely.registry().register(Face(), name="tersely-toy")
    yield
    tersely.registry().unregister(name)
    del sys.modules["tersely_toy"]
