"""Warnings on the command line: a sentence, as an error is one."""

import subprocess
import sys

CODE = """
import warnings

from tersely.cli import main as command_line
from tersely.errors import CompressionWarning


def warn(*args, **kwargs):
    warnings.warn("a layer has nothing left", CompressionWarning)
    warnings.warn("someone else's", UserWarning)


command_line.cli.main = warn
command_line.main([])
"""


def test_a_warning_of_tersely_is_a_sentence_and_others_are_as_always() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)

    first, *others = done.stderr.splitlines()
    assert first == "tersely: warning: a layer has nothing left"
    assert others[0].endswith("UserWarning: someone else's")
