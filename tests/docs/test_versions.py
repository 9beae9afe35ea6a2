"""What the specification, its schemas, the changelog and the code say about versions agrees."""

import json
import re
from pathlib import Path

import pytest
import torch

import tersely

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "spec"
CHANGELOG = ROOT / "docs" / "changelog.md"


def specified() -> str:
    """The version that the specification states, on a line of its own above the first chapter."""
    opening, _, _ = (SPEC / "README.md").read_text(encoding="utf-8").partition("\n## ")
    [version] = re.findall(r"^Version (\d+\.\d+)$", opening, flags=re.MULTILINE)
    return version


def own_versions() -> dict[str, str]:
    """What the changelog says has a version of its own -> this version."""
    opening, _, _ = CHANGELOG.read_text(encoding="utf-8").partition("\n## ")
    return dict(re.findall(r"[Tt]he ([a-z A-Z]+?) \((\d[\d.]*)\)", " ".join(opening.split())))


@pytest.mark.parametrize("schema", sorted(SPEC.glob("*.schema.json")), ids=lambda file: file.name)
def test_every_schema_belongs_to_the_version_of_the_specification(schema):
    stated = json.loads(schema.read_text(encoding="utf-8"))["$comment"]
    assert stated == f"Version {specified()} of the tersely specification."


def test_the_changelog_names_everything_that_has_a_version_of_its_own():
    assert sorted(own_versions()) == ["plugin API", "session format", "specification"]


def test_the_changelog_states_the_version_of_the_specification():
    assert own_versions()["specification"] == specified()
    release = CHANGELOG.read_text(encoding="utf-8").partition("\n## ")[2]
    assert re.findall(r"specification under `spec/`, version (\d+\.\d+)", release) == [specified()]


def face(api: tuple[int, int]) -> object:
    """A plugin that is written for one version of the plugin API and provides nothing."""

    class Face:
        tersely_api = api

        @tersely.hookimpl
        def tersely_pruners(self):
            return []

    return Face()


def test_the_changelog_states_the_newest_plugin_api_that_faces_are_registered_with():
    major, minor = map(int, own_versions()["plugin API"].split("."))
    assert tersely.plugin_api == (major, minor)
    own = face((major, minor))
    tersely.registry().unregister(tersely.registry().register(own, name="versions"))
    with pytest.raises(tersely.PluginApiError):
        tersely.registry().register(face((major, minor + 1)), name="versions")


def test_the_changelog_states_the_format_that_sessions_are_saved_in(tmp_path):
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.5}
    tersely.prune(torch.nn.Sequential(torch.nn.Linear(2, 2)), [entry]).save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "session.json").read_text(encoding="utf-8"))
    assert str(saved["version"]) == own_versions()["session format"]


def test_the_newest_release_of_the_changelog_is_this_version():
    headings = re.findall(r"^## (\S+)$", CHANGELOG.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert headings[0] == tersely.__version__
