"""The pages build, and no link between them is broken."""

from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path, fresh):
    command = ("-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html")
    done = fresh.run(*command, str(DOCS), str(tmp_path / "html"), cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "html" / "index.html").exists()
