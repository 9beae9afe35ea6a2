"""A calibration batch of no rows is no data: the same comes out as without it."""

import pytest
import torch
from torch import nn

import tersely

PRUNING = ["wanda", "sparsegpt", "mean_activation", "apoz"]
QUANTIZATION = ["ptq", "gptq", "awq", "smoothquant", "adaround", "lsq", "lsq_plus", "qat"]
WEIGHTS_ALONE = ["gptq", "awq", "adaround"]


def compressed(algorithm, batches):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    entry = {"op_types": ["Linear"]}
    if algorithm in PRUNING:
        tersely.prune(model, [{**entry, "sparse_ratio": 0.5}], algorithm=algorithm, data=batches)
    else:
        names = ["weight"] if algorithm in WEIGHTS_ALONE else ["_input_", "weight"]
        entry = {**entry, "target_names": names}
        tersely.quantize(model, [entry], algorithm=algorithm, data=batches)
    return model.state_dict()


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("algorithm", [*PRUNING, *QUANTIZATION])
def test_a_batch_without_rows_changes_nothing(algorithm, is_first):
    full = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    empty = torch.empty(0, 8)
    found = compressed(algorithm, [empty, full] if is_first else [full, empty])
    for name, value in compressed(algorithm, [full]).items():
        assert torch.equal(found[name], value), name
