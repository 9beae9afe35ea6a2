"""What exports of tensors take beside the model: a few tensors, however many the model has.

In a process of its own, since the peak of memory belongs to a process.
"""

import os
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

TRANSFORMERS = """
import sys
import warnings

warnings.simplefilter("ignore")
import torch
import transformers

import tersely
from tersely.reporting.measuring.memory import peak_memory

ENTRY = {
    "op_types": ["Linear"],
    "exclude_op_names": ["lm_head"],
    "target_names": ["weight"],
    "quant_dtype": "int4",
    "granularity": {"group": 64},
}
TOKENS = {"input_ids": torch.ones(1, 4, dtype=torch.long)}


def tensors_beside(width, layers, *, check):
    config = transformers.LlamaConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        vocab_size=64,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    session = tersely.quantize(model, [ENTRY], algorithm="rtn", data=[TOKENS])
    with peak_memory() as peak:
        session.export("compressed_tensors", sys.argv[1], example_inputs=TOKENS, check=check)
    return peak.bytes / (4 * 4 * width * width)


for check in (False, True):
    tensors_beside(64, 1, check=check)  # what is imported late
    print(tensors_beside(768, 8, check=check))
"""


@pytest.fixture
def run():
    """Run a script in a process of its own, and return the numbers that it prints."""
    with peak_memory() as peak:
        pass
    if peak.bytes is None:
        pytest.skip("this system does not tell the peak of memory")

    def run(script, path):
        done = subprocess.run(
            [sys.executable, "-c", script, str(path)],
            # What is freed goes back to the system at once, so that it counts once.
            env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [*map(float, done.stdout.split())]

    return run


def test_a_model_is_written_and_read_back_a_few_tensors_at_a_time(run, tmp_path):
    written, checked = run(SCRIPT, tmp_path / "m.safetensors")

    # Of 12 tensors; 2.6 and 6.2 of them were measured, and 18 where the check compared whole ones.
    assert written < 4
    assert checked < 9


def test_transformers_reads_a_model_back_one_layer_at_a_time(run, tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("compressed_tensors")

    written, checked = run(TRANSFORMERS, tmp_path / "m")

    # Of 32 tensors, which packed are 4.3; 1.9 and 7.9 of them were measured, and 38.6 where the
    # loaded model was in memory as floats.
    assert written < 4
    assert checked < 12
