"""Every mistake of the table is found by the check that the table names."""

import pytest
import torch
from found_by import FOUND_BY, HOLDS, OPTIONS

from tersely.testing.by_kind import CONTRACTS


def described(sample):
    """What the descriptor of a sample says beside its name."""
    found = {"implementation": f"contract_samples.{sample}"}
    if sample in HOLDS:
        found["holds"] = HOLDS[sample]
    if sample.startswith("exporters:"):
        found["suffix"] = ".npz"
    if sample in OPTIONS:
        kinds = {list: "array", int: "integer", float: "number"}
        found["options"] = {
            "type": "object",
            "properties": {
                key: {"type": kinds[type(value)], "default": value}
                for key, value in OPTIONS[sample].items()
            },
            "additionalProperties": False,
            "examples": [OPTIONS[sample]],
        }
    return found


@pytest.mark.parametrize(
    ("kind", "sample", "check"),
    FOUND_BY,
    ids=[f"{sample.partition(':')[2]}-{check}" for _, sample, check in FOUND_BY],
)
def test_a_mistake_is_found(register, kind, sample, check):
    name = register(kind, sample, **described(sample))

    try:
        # Whatever the check runs into is a finding of `contract_results`.
        with pytest.raises(Exception):  # noqa: B017, PT011
            getattr(CONTRACTS[kind](name), check)()
    finally:
        torch.set_grad_enabled(True)  # which one of them switches off


def test_no_mistake_stands_twice_for_one_check():
    assert len(FOUND_BY) == len(set(FOUND_BY))
