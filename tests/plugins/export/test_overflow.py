"""Sums of 16 bits, which processors without VNNI compute 8 bit products in."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tersely
from tersely_export.for_onnx import overflow, round_trip

AVX2 = {"architecture": "x86_64", "avx2": True, "avx512_vnni": False, "avx_vnni": False}
INPUTS = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(processor: dict[str, object], *, options: Any = None, **stage: Any) -> Any:
        monkeypatch.setattr(overflow, "capabilities", lambda: processor)
        model = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 8))
        session = tersely.quantize(model.eval(), data=[INPUTS], **stage)
        # The sums of these inputs and weights fit 16 bits on every processor.
        return session.export("onnx", tmp_path / "m.onnx", example_inputs=INPUTS, options=options)

    return run


def test_weights_that_may_overflow_on_this_machine_are_warned_of_by_name(export: Any) -> None:
    with pytest.warns(UserWarning, match=r"may overflow on it: 0\.weight, 2\.weight; .*int7"):
        export(AVX2, preset="w8a8")


def _entry(weight: str, inputs: str, **more: Any) -> dict[str, Any]:
    settings = {"weight": {"quant_dtype": weight}, "_input_": {"quant_dtype": inputs}, **more}
    return {"op_types": ["Linear"], "target_names": list(settings), "target_settings": settings}


def test_signed_inputs_of_few_bits_are_multiplied_as_large_unsigned_ones(export: Any) -> None:
    # onnxruntime adds 128: 2 x (7 + 128) x 127 = 34290 is more than 32767.
    with pytest.warns(UserWarning, match=r"may overflow on it: 0\.weight, 2\.weight"):
        export(AVX2, algorithm="ptq", config_list=[_entry("int8", "int4")])


@pytest.mark.parametrize(
    "entry",
    [
        _entry("int7", "int8", bias={"quant_dtype": "int32"}),
        _entry("int8", "uint7"),
        _entry("int8", "int16"),
    ],
    ids=["int32 bias", "7 bit inputs", "no integer kernel"],
)
@pytest.mark.filterwarnings("ignore::tersely.errors.CompressionWarning")  # products in floats
def test_biases_and_products_that_fit_are_not_warned_of(export: Any, entry: Any) -> None:
    export(AVX2, algorithm="ptq", config_list=[entry])


class Tied(nn.Module):
    """Rows of an embedding are also the weight of the head, whose input is rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(10, 32), nn.Linear(32, 10, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.embedding(index))
        return found


def test_a_tied_weight_is_warned_of_where_another_module_multiplies_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overflow, "capabilities", lambda: AVX2)
    entries = [
        {"op_names": ["embedding"], "target_names": ["weight"]},
        {"op_names": ["head"], "target_names": ["_input_"]},
    ]
    index = torch.arange(8).reshape(2, 4)
    session = tersely.quantize(Tied().eval(), algorithm="ptq", config_list=entries, data=[index])

    with pytest.warns(UserWarning, match=r"may overflow on it: embedding\.weight"):
        session.export("onnx", tmp_path / "m.onnx", example_inputs=index)


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
@pytest.mark.filterwarnings("ignore::tersely.errors.CompressionWarning")  # products in floats
def test_what_fits_16_bits_is_not_warned_of(export: Any, stage: dict[str, Any]) -> None:
    export(AVX2, **stage)


def test_a_file_that_is_checked_with_exact_sums_is_not_warned_of(export: Any) -> None:
    exported = export(AVX2, preset="w8a8", options={"exact_sums": True})

    assert exported.checks["exact_sums"] is True


@pytest.mark.filterwarnings("ignore:this processor has no VNNI")
def test_a_layer_that_differs_is_refused_with_the_cause_and_what_to_do(
    export: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No layer is less than no step apart.
    monkeypatch.setattr(round_trip, "_TOO_FAR", -1.0)

    with pytest.raises(tersely.ExportError) as caught:
        export(AVX2, preset="w8a8")

    assert caught.value.reason.partition("expected 1")[2] == (
        "; this processor has no VNNI and adds products in 16 bits, which overflow: quantize the "
        "weights to int7, as reduce_range does in a preset; for a file that runs on other "
        "processors, or in sessions that set session.x64quantprecision, export with the option "
        "exact_sums"
    )


@pytest.mark.parametrize(
    ("processor", "stage"),
    [
        ({**AVX2, "avx512_vnni": True}, {"preset": "w8a8"}),
        (AVX2, {"preset": "w8a8", "reduce_range": True}),
        (AVX2, {"preset": "w8a8", "options": {"exact_sums": True}}),
    ],
    ids=["VNNI", "reduced", "exact sums"],
)
def test_a_layer_that_differs_where_nothing_overflows_is_no_matter_of_the_processor(
    export: Any, monkeypatch: pytest.MonkeyPatch, processor: Any, stage: Any
) -> None:
    monkeypatch.setattr(round_trip, "_TOO_FAR", -1.0)

    with pytest.raises(tersely.ExportError, match=r"expected 1$"):
        export(processor, **stage)


@pytest.mark.filterwarnings("ignore:this processor has no VNNI")
def test_outputs_that_differ_are_refused_with_the_cause(
    export: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(round_trip, "tensors_of", lambda outputs: [-outputs])

    with pytest.raises(tersely.ExportError, match=r"cosine.*; this processor has no VNNI"):
        export(AVX2, preset="w8a8")


@pytest.mark.parametrize("preset", ["w8a8", "w8a8_dynamic"])
def test_sums_that_overflow_16_bits_are_exact_on_every_processor(
    tmp_path: Path, preset: str
) -> None:
    model = nn.Sequential(nn.Linear(64, 16, bias=False)).eval()
    nn.init.ones_(model[0].weight)  # type: ignore[arg-type]  # a layer
    # 2 x 255 x 127 = 64770 is about twice what 16 bits hold.
    inputs = torch.full((4, 64), 3.0)
    session = tersely.quantize(model, preset=preset, data=[inputs])

    exported = session.export(
        "onnx", tmp_path / "m.onnx", example_inputs=inputs, options={"exact_sums": True}
    )

    assert exported.checks["largest_error_in_steps"] < 1.0
    assert exported.checks["cosine"] > 0.9999


def test_this_machine_is_known_or_nothing_is_said_of_it() -> None:
    found = overflow.capabilities()

    assert not found or isinstance(found["architecture"], str)
