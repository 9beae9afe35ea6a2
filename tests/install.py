"""Install packages into an environment of tox, with projects of this repository among them.

    python tests/install.py [PIP'S ARGUMENTS...]

pip builds every project in an environment of its own, which takes longer than the build. Here the
backend is installed once, beside the packages, and builds all of them.
"""

import os
import subprocess
import sys
from collections.abc import Sequence

# Compiling ahead what no test imports would more than double the time of torch.
PIP = (sys.executable, "-I", "-m", "pip", "install", "--no-compile")
BACKEND = ("hatchling", "editables")


def main(arguments: Sequence[str]) -> int:
    """Run pip; returns its status."""
    if "-e" not in arguments:
        return subprocess.run([*PIP, *arguments], check=False).returncode
    # Nothing is built apart, so there is nothing to constrain, which pip refuses to ignore.
    environment = {k: v for k, v in os.environ.items() if k != "PIP_BUILD_CONSTRAINT"}
    for some in (BACKEND, ("--no-build-isolation", *arguments)):
        status = subprocess.run([*PIP, *some], env=environment, check=False).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
