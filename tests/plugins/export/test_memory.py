"""What exports of tensors take beside the model: a few tensors, however many the model has.

In a process of its own, since the peak of memory belongs to a process.
"""

import subprocess
import sys

import pytest

from tersely.reporting.measuring.memory import peak_memory

SCRIPT = """
import sys

from torch import nn

import tersely
from tersely.reporting.measuring.memory import peak_memory

ENTRY = {
    "op_types": ["Linear"],
    "target_names": ["weight"],
    "quant_dtype": "int4",
    "granularity": {"group": 64},
}


def tensors_beside(width, layers, *, check):
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))
    session = tersely.quantize(model, [ENTRY], algorithm="rtn")
    with peak_memory() as peak:
        session.export("safetensors", sys.argv[1], check=check)
    return peak.bytes / (4 * width * width)


for check in (False, True):
    tensors_beside(64, 1, check=check)  # what is imported late
    print(tensors_beside(2048, 12, check=check))
"""


def test_a_model_is_written_and_read_back_a_few_tensors_at_a_time(tmp_path):
    with peak_memory() as peak:
        pass
    if peak.bytes is None:
        pytest.skip("this system does not tell the peak of memory")

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "m.safetensors")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    written, checked = map(float, done.stdout.split())
    # Of 12 tensors; 2.6 and 6.2 of them were measured, and 18 where the check compared whole ones.
    assert written < 4
    assert checked < 9
