"""The distributions, built once, and an environment with nothing but them."""

import os
import shutil
import subprocess
import sys
import sysconfig
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

    def install(self, *requirements: str) -> None:
        """Install packages at the pinned versions."""
        pins = str(ROOT / "constraints.txt")
        options = ("-q", "--no-compile", "-c", pins)
        done = self.run("python", "-m", "pip", "install", *options, *requirements)
        assert done.returncode == 0, done.stderr


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
def bare(built, tmp_path_factory) -> Installed:
    """The wheel of the core and what it needs, without any extra, in a fresh environment."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=True)
    environment = Installed(folder, tmp_path_factory.mktemp("elsewhere"))
    environment.install(str(_wheel_of_the_core(built)))
    return environment


@pytest.fixture(scope="session")
def installed(built, bare, tmp_path_factory) -> Installed:
    """Every wheel and all it depends on, at the pinned versions, in an environment of their own."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    # What the core needs, torch among it, is linked instead of installed a second time; pip removes
    # files before it writes others, so the environment of the core stays as it is.
    shutil.copytree(
        _packages(bare.folder),
        _packages(folder),
        ignore=shutil.ignore_patterns("tersely*"),
        copy_function=os.link,
        dirs_exist_ok=True,
    )
    environment = Installed(folder, tmp_path_factory.mktemp("elsewhere"))
    wheels = [str(wheel) for wheel in sorted(built.glob("*.whl"))]
    core = wheels.index(str(_wheel_of_the_core(built)))
    wheels[core] += "[cli,report,search]"
    environment.install(*wheels)
    return environment


def _packages(environment: Path) -> str:
    return sysconfig.get_path("purelib", vars={"base": str(environment)})


def _wheel_of_the_core(built: Path) -> Path:
    [wheel] = built.glob("tersely-*.whl")
    return wheel
