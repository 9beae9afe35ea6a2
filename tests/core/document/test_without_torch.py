"""Validation does not import torch; tests/benchmarks/test_start.py measures its time."""

import os
import subprocess
import sys

import pytest

FACE = """
import tersely

tersely_api = 1


@tersely.hookimpl
def tersely_pruners():
    return [tersely.PrunerInfo(name="quick", implementation="quick:Quick")]
"""
ENTRY = """
  - op_names: [layer{0}.conv1, layer{0}.conv2]
    op_types: [Conv2d]
    sparse_ratio: 0.5
    global_group_id: all
    target_settings:
      weight: {{min_sparse_ratio: 0.1, max_sparse_ratio: 0.9}}"""
PROGRAM = """
import sys
from tersely.cli.main import main
try:
    main(["validate", "recipe.yaml"])
except SystemExit as error:
    status = error.code
print("torch" in sys.modules)
sys.exit(status)
"""


@pytest.fixture
def folder(tmp_path):
    """A recipe of a hundred entries, and an installed plugin that it uses."""
    info = tmp_path / "quick-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: quick\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tersely]\nquick = quick\n")
    (tmp_path / "quick.py").write_text(FACE)
    entries = "".join(ENTRY.format(number) for number in range(100))
    (tmp_path / "recipe.yaml").write_text(
        f"pruning:\n  algorithm: quick:quick\n  config_list:{entries}\n"
    )
    return tmp_path


def test_a_hundred_entries_are_validated_without_torch(folder):
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == ["recipe.yaml: valid (recipe)", "False"]
