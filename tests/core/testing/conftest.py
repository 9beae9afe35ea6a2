"""A registry with the core alone, and samples to register in it one by one."""

import os
import sys
from pathlib import Path

import pytest

import tersely
from tersely.registry import registry as registry_module
from tersely.registry.descriptors import Descriptor
from tersely.registry.registry import load_registry

SAMPLES = str(Path(__file__).with_name("samples"))
KINDS = {
    "pruner": (tersely.PrunerInfo, "tersely_pruners", "pruners"),
    "granularity": (tersely.GranularityInfo, "tersely_granularities", "granularities"),
    "quantizer": (tersely.QuantizerInfo, "tersely_quantizers", "quantizers"),
    "loss": (tersely.LossInfo, "tersely_distillation_losses", "losses"),
    "exporter": (tersely.ExporterInfo, "tersely_exporters", "exporters"),
    "schedule": (tersely.ScheduleInfo, "tersely_schedules", "schedules"),
}


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """The process-wide registry with nothing but the core: no plugin family is installed."""
    registry = load_registry(environ={}, path=[])
    monkeypatch.setattr(registry_module, "_process_registry", registry)
    monkeypatch.syspath_prepend(SAMPLES)
    # Contracts import faces in a new process.
    monkeypatch.setenv("PYTHONPATH", SAMPLES, prepend=os.pathsep)
    yield registry
    for name in [name for name in sys.modules if name.partition(".")[0].endswith("_samples")]:
        del sys.modules[name]


@pytest.fixture
def register(registry):
    """Register one sample and return the name it has there: ``register("loss", "good")``."""

    def register(kind, sample, *, name="sample", **described) -> str:
        info, hook, module = KINDS[kind]
        described = {"summary": "A sample.", **described}
        reference = described.pop("implementation", f"contract_samples.{module}:{sample}")
        descriptor: Descriptor = info(name=name, implementation=reference, **described)

        def collect(self):
            return [descriptor]

        collect.__name__ = hook
        face = type("Face", (), {hook: tersely.hookimpl(collect)})()
        registry.register(face, name=f"samples-{name}")
        return name

    return register


@pytest.fixture
def failures():
    """What a contract finds wrong: title of the check -> message."""
    from tersely.testing import contract_results  # late: the registry above must come first

    def failures(contract) -> dict[str, str]:
        return {
            result.name: result.message
            for result in contract_results(contract)
            if not result.passed
        }

    return failures
