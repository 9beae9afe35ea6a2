"""Which layers of a transformer hurt: what a measurement costs, and whether the order is right."""

import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tersely

pytestmark = [
    pytest.mark.benchmark,
    # torchao, which transformers imports where it is installed
    pytest.mark.filterwarnings("ignore:invalid escape sequence"),
]

BITS = (8, 4, 2)


def _ranks(values: list[float]) -> Tensor:
    return torch.tensor(values).argsort().argsort().double()


def _spearman(one: list[float], other: list[float]) -> float:
    return float(torch.corrcoef(torch.stack([_ranks(one), _ranks(other)]))[0, 1])


def _outputs(model: nn.Module, data: list[Any], minilm: ModuleType) -> Tensor:
    return minilm.embed(model, data)


def test_minilm_is_measured_in_a_few_passes_and_ranked_as_by_whole_models(
    minilm: ModuleType, record_property: Callable[[str, object], None]
) -> None:
    model = minilm.load()
    data = [{key: one[key][:, :32] for key in one} for one in minilm.batches()[0][:1]]
    entry = {**minilm.LINEARS, "target_names": ["weight", "_input_"], "quant_dtype": "int8"}
    recipe = {"quantization": {"algorithm": "ptq", "config_list": [entry]}}
    passes, start = [], time.process_time()

    def watching(done: int, total: int) -> None:
        if done % 12 == 0:
            begin = time.process_time()
            minilm.run(model, data)
            passes.append(time.process_time() - begin)

    found = tersely.sensitivity(model, recipe, data=data, bits=BITS, watching=watching)
    spent = time.process_time() - start - sum(passes)
    one_pass = sum(passes) / len(passes)
    cost = spent / len(found) / one_pass
    record_property("passes per measurement", cost)

    # The whole model, quantized in this layer alone, calibrated on whole passes, and its embeddings.
    dense = _outputs(model, data, minilm)
    measured, whole = [], []
    for one in found:
        settings = {"weight": {"quant_dtype": f"int{one.level}"}}
        alone = {**entry, "op_types": None, "op_names_re": None, "op_names": list(one.modules)}
        alone["target_settings"] = settings
        session = tersely.quantize(model, [alone], data=data)
        measured.append(one.value)
        whole.append(float((_outputs(model, data, minilm) - dense).norm()))
        session.detach()
    order = {
        bits: _spearman(*zip(*_at(found, measured, whole, bits), strict=True)) for bits in BITS
    }
    print(f"{cost:.2f} passes a measurement; rank correlation {order}")  # noqa: T201  # the result
    assert len(found) == 108
    assert cost < 3
    assert min(order.values()) > 0.9


def _at(
    found: Any, measured: list[float], whole: list[float], bits: int
) -> list[tuple[float, float]]:
    return [
        pair
        for one, pair in zip(found, zip(measured, whole, strict=True), strict=True)
        if one.level == bits
    ]
