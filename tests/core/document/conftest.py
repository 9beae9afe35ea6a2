"""A registry of known content, so that messages do not depend on what is installed."""

import pytest

import laconic
from laconic.document.load import parse_config_list
from laconic.document.validate import find_problems
from laconic.document.yaml_text import read_yaml
from laconic.registry import registry as registry_module
from laconic.registry.descriptors import ExporterInfo, ScheduleInfo
from laconic.registry.registry import Registry

NOTHING = "nowhere:Nothing"


def options(required=(), **properties):
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def described(kind, name, **more):
    return kind(name=name, implementation=NOTHING, **more)


BLOCK = {
    "type": "array",
    "minItems": 1,
    "items": {"anyOf": [{"const": -1}, {"type": "integer", "minimum": 1}]},
}
POWER = {"type": "number", "exclusiveMinimum": 0}


class Face:
    """Provides what the tests of documents name."""

    @laconic.hookimpl
    def laconic_pruners(self):
        steps = {"type": "integer", "minimum": 1}
        return [
            described(laconic.PrunerInfo, "level"),
            described(laconic.PrunerInfo, "l1_norm"),
            described(laconic.PrunerInfo, "power", options=options(power=POWER)),
            described(laconic.PrunerInfo, "taylor", options=options(["steps"], steps=steps)),
        ]

    @laconic.hookimpl
    def laconic_quantizers(self):
        return [
            described(laconic.QuantizerInfo, "ptq"),
            described(laconic.QuantizerInfo, "qat", needs="training"),
        ]

    @laconic.hookimpl
    def laconic_granularities(self):
        return [
            described(laconic.GranularityInfo, "out_channel"),
            described(laconic.GranularityInfo, "per_channel"),
            described(
                laconic.GranularityInfo,
                "block",
                values=BLOCK,
                options=options(["value"], value=BLOCK),
            ),
        ]

    @laconic.hookimpl
    def laconic_distillation_losses(self):
        return [
            described(laconic.LossInfo, "mse"),
            described(laconic.LossInfo, "kl", options=options(temperature=POWER)),
        ]

    @laconic.hookimpl
    def laconic_schedules(self):
        return [described(ScheduleInfo, "linear"), described(ScheduleInfo, "agp")]

    @laconic.hookimpl
    def laconic_exporters(self):
        opset = {"type": "integer", "minimum": 17}
        return [described(ExporterInfo, "onnx", options=options(opset=opset))]


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """The process-wide registry, holding the face above and nothing else."""
    registry = Registry()
    registry.register(Face(), name="laconic-known")
    monkeypatch.setattr(registry_module, "_process_registry", registry)
    return registry


@pytest.fixture
def lines():
    """The problems of a YAML text, one string each, as they are printed."""

    def lines_of(text, kind="recipe"):
        return [str(problem) for problem in find_problems(read_yaml(text), kind)]

    return lines_of


@pytest.fixture
def entry_lines():
    """The problems of the one entry of a config list, given as Python data."""

    def lines_of(method, **entry):
        entry = {"op_types": ["Linear"], **entry}
        try:
            parse_config_list(method, [entry])
        except laconic.ConfigError as error:
            return [str(problem) for problem in error.problems]
        return []

    return lines_of
