"""The distributions, built once, and an environment with nothing but them."""

import subprocess
import sys
import venv
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT, *sorted((ROOT / "plugins").iterdir()))


@attrs.frozen
class Installed:
    """An environment with every wheel installed.

    Attributes:
        folder: the environment's root.
        elsewhere: an empty folder to work in, away from the repository.
    """

    folder: Path
    elsewhere: Path

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment and return what it printed."""
        scripts = self.folder / ("Scripts" if sys.platform == "win32" else "bin")
        return subprocess.run(
            [str(scripts / program), *arguments],
            cwd=self.elsewhere,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist of each distribution, and the wheel built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    for source in FOLDERS:
        subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)],
            check=True,
            capture_output=True,
        )
    return folder


@pytest.fixture(scope="session")
def installed(built, tmp_path_factory) -> Installed:
    """Every wheel and all it depends on, at the pinned versions, in a fresh environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    environment = Installed(folder, tmp_path_factory.mktemp("elsewhere"))
    wheels = [str(wheel) for wheel in sorted(built.glob("*.whl"))]
    done = environment.run(
        "python",
        "-m",
        "pip",
        "install",
        "-q",
        "--no-compile",
        "-c",
        str(ROOT / "constraints.txt"),
        *wheels,
    )
    assert done.returncode == 0, done.stderr
    return environment
