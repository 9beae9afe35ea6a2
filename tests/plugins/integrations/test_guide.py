"""The scripts of the guide on training loops run as they stand there, each in its own process."""

import os
import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "training-loops.md"
SCRIPTS = dict(
    re.findall(
        r"^```\{code-block\} python\n:caption: (\w+\.py)\n(.*?)^```$",
        GUIDE.read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
)


def test_the_guide_has_a_script_for_every_framework():
    assert list(SCRIPTS) == ["lightning_loop.py", "transformers_loop.py", "accelerate_loop.py"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_of_the_guide_runs(name, tmp_path, fresh):
    (tmp_path / name).write_text(SCRIPTS[name], encoding="utf-8")
    done = fresh.run(name, cwd=tmp_path, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
