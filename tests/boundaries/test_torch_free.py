"""What must answer without torch, and what `import tersely` may load.

tests/benchmarks/test_start.py measures the time.
"""

import json
import subprocess
import sys

import pytest

TORCH_FREE = ("errors", "log", "registry", "document", "cli")

FIRST_WITH_TORCH = """
import importlib, json, sys
guilty = []
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
    if "torch" in sys.modules:
        guilty.append(name)
        break
print(json.dumps(guilty))
"""

MODULES = """
import sys
counts = [len(sys.modules)]
for name in ("tersely", "torch"):
    __import__(name)
    counts.append(len(sys.modules))
print(counts[1] - counts[0], counts[2] - counts[1])
"""


def _run(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_importing_tersely_imports_no_torch():
    assert _run("import tersely, sys; print('torch' in sys.modules)").strip() == "False"


def test_documents_registry_and_command_line_import_no_torch(core):
    modules = [
        source.module
        for source in core
        if source.module == "tersely" or source.module.split(".")[1] in TORCH_FREE
    ]
    assert json.loads(_run(FIRST_WITH_TORCH, json.dumps(modules))) == []


@pytest.mark.parametrize(
    "family",
    [
        "granularity",
        "pruning",
        "quantization",
        "distillation",
        "export",
        "integrations",
    ],
)
def test_the_face_of_a_family_imports_no_torch(family):
    assert json.loads(_run(FIRST_WITH_TORCH, json.dumps([f"tersely_{family}"]))) == []


def test_loading_every_plugin_imports_no_torch():
    code = "import tersely, sys; tersely.registry().plugins(); print('torch' in sys.modules)"
    assert _run(code).strip() == "False"


def test_importing_tersely_loads_less_than_a_quarter_of_the_modules_that_torch_loads():
    tersely, torch = map(int, _run(MODULES).split())
    assert tersely < torch / 4
