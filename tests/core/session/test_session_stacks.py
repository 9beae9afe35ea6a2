"""Small targets alike are decided in one go, with the masks that each would get by itself."""

import pytest
import torch
from torch import nn

import tersely

pytestmark = pytest.mark.usefixtures("toy_pruners")

LIMITS = [
    {"sparse_ratio": 0.5},
    {"sparse_ratio": 0.29},
    {"sparse_threshold": 1.0},
    {"sparse_threshold": 1.0, "min_sparse_ratio": 0.3, "max_sparse_ratio": 0.6},
]


def tied(count):
    """Layers of a few different magnitudes, so that many weights are tied."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(*(nn.Linear(8, 6, bias=False) for _ in range(count)))
    for layer in model:
        layer.weight.data = torch.randint(-3, 4, (6, 8), generator=generator).float() / 2
    return model


def masks_of(model, names, limits):
    entry = {"op_names": names, "target_names": ["weight"], **limits}
    return tersely.prune(model, [entry], algorithm="toy").masks()


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_targets_alike_get_the_masks_that_each_gets_alone(limits):
    names = [str(number) for number in range(6)]
    together = masks_of(tied(6), names, limits)
    for name in names:
        alone = masks_of(tied(6), [name], limits)
        assert torch.equal(together[name]["weight"], alone[name]["weight"])


def test_each_of_many_targets_has_a_mask_of_its_own():
    model = tied(6)
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.5}
    tersely.prune(model, [entry], algorithm="toy")
    buffers = [buffer for name, buffer in model.named_buffers() if "mask" in name]
    assert len({buffer.untyped_storage().data_ptr() for buffer in buffers}) == len(model) == 6
    assert all(buffer.untyped_storage().nbytes() == 4 * 48 for buffer in buffers)


def test_a_value_that_is_not_finite_is_told_of_the_target_that_has_it():
    model = tied(6)
    model[4].weight.data[0, 1] = float("nan")
    with pytest.raises(tersely.CalibrationError, match=r"4\.weight: 1 of its 48 .* flat index 1\)"):
        masks_of(model, [str(number) for number in range(6)], {"sparse_ratio": 0.5})
