"""Sums of 16 bits, which processors without VNNI compute 8 bit products in."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tersely
from tersely_export import onnx as module

AVX2 = {"architecture": "x86_64", "avx2": True, "avx512_vnni": False, "avx_vnni": False}
INPUTS = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(processor: dict[str, object], **stage: Any) -> None:
        monkeypatch.setattr(module, "capabilities", lambda: processor)
        model = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 8))
        session = tersely.quantize(model.eval(), data=[INPUTS], **stage)
        session.export("onnx", tmp_path / "m.onnx", example_inputs=INPUTS)

    return run


def test_weights_that_may_overflow_on_this_machine_are_warned_of_by_name(export: Any) -> None:
    with pytest.warns(UserWarning, match=r"may overflow on it: 0\.weight, 2\.weight; .*int7"):
        export(AVX2, preset="w8a8")


@pytest.mark.parametrize(
    "processor",
    [
        {**AVX2, "avx512_vnni": True},
        {**AVX2, "avx_vnni": True},
        {**AVX2, "amx_int8": True},
        {"architecture": "aarch64"},
        {},
    ],
    ids=["avx512_vnni", "avx_vnni", "amx", "arm", "unknown"],
)
def test_no_other_processor_is_warned_of(export: Any, processor: dict[str, object]) -> None:
    export(processor, preset="w8a8")


@pytest.mark.parametrize(
    "stage",
    [
        {"preset": "w8a8", "reduce_range": True},
        {"algorithm": "rtn", "config_list": [{"op_types": ["Linear"], "target_names": ["weight"]}]},
    ],
    ids=["reduced", "weights alone"],
)
def test_what_fits_16_bits_is_not_warned_of(export: Any, stage: dict[str, Any]) -> None:
    export(AVX2, **stage)


def test_this_machine_is_known_or_nothing_is_said_of_it() -> None:
    found = module.capabilities()

    assert not found or isinstance(found["architecture"], str)
