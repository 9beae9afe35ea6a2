"""A registry of known content, so that messages do not depend on what is installed."""

import pytest

import tersely
from tersely.document.load import parse_config_list
from tersely.document.reading.yaml_text import read_yaml
from tersely.document.validate import find_problems
from tersely.registry import registry as registry_module
from tersely.registry.descriptors import ExporterInfo, ScheduleInfo
from tersely.registry.registry import Registry

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

    @tersely.hookimpl
    def tersely_pruners(self):
        steps = {"type": "integer", "minimum": 1}
        return [
            described(tersely.PrunerInfo, "level"),
            described(tersely.PrunerInfo, "l1_norm"),
            described(tersely.PrunerInfo, "power", options=options(power=POWER)),
            described(tersely.PrunerInfo, "taylor", options=options(["steps"], steps=steps)),
        ]

    @tersely.hookimpl
    def tersely_quantizers(self):
        return [
            described(tersely.QuantizerInfo, "ptq"),
            described(tersely.QuantizerInfo, "qat", needs="training"),
        ]

    @tersely.hookimpl
    def tersely_granularities(self):
        return [
            described(tersely.GranularityInfo, "out_channel"),
            described(tersely.GranularityInfo, "per_channel"),
            described(
                tersely.GranularityInfo,
                "block",
                values=BLOCK,
                options=options(["value"], value=BLOCK),
            ),
        ]

    @tersely.hookimpl
    def tersely_distillation_losses(self):
        return [
            described(tersely.LossInfo, "mse"),
            described(tersely.LossInfo, "kl", options=options(temperature=POWER)),
        ]

    @tersely.hookimpl
    def tersely_schedules(self):
        return [described(ScheduleInfo, "linear"), described(ScheduleInfo, "agp")]

    @tersely.hookimpl
    def tersely_exporters(self):
        opset = {"type": "integer", "minimum": 17}
        return [described(ExporterInfo, "onnx", options=options(opset=opset))]


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """The process-wide registry, holding the face above and nothing else."""
    registry = Registry()
    registry.register(Face(), name="tersely-known")
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
        except tersely.ConfigError as error:
            return [str(problem) for problem in error.problems]
        return []

    return lines_of
