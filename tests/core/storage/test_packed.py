"""Masks that were read stay one bit an element until somebody asks for one."""

import pytest
import torch
from messages.blocks import bytes_of_bools

from tersely.storage.packed import PackedTensors

MASK = torch.tensor([[True, False, True], [False, False, True], [True, True, True]])
SCORE = torch.tensor([1.5, -2.0])


def test_a_mask_is_kept_as_bits_and_asked_for_as_bool() -> None:
    packed = PackedTensors.of({"mask": MASK, "score": SCORE})

    # Nine elements in flat order, the lowest bit first: 101 001 11, then 1.
    assert packed.stored["mask"].tolist() == [1 + 4 + 32 + 64 + 128, 1]
    assert packed.shapes == {"mask": [3, 3]}
    assert torch.equal(packed["mask"], MASK)
    assert packed["score"] is SCORE
    assert list(packed) == ["mask", "score"]
    assert len(packed) == 2


def test_a_mask_is_unpacked_anew_each_time() -> None:
    packed = PackedTensors.of({"mask": MASK})

    packed["mask"].zero_()

    assert torch.equal(packed["mask"], MASK)


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"other": [9]}, "other: there is no such tensor"),
        ({"mask": [17]}, f"mask: {bytes_of_bools(3)} \\[17\\]"),
    ],
    ids=["missing", "too_few"],
)
def test_bits_that_do_not_fit_are_refused_before_any_is_unpacked(shapes, reason) -> None:
    stored = PackedTensors.of({"mask": MASK}).stored

    with pytest.raises(ValueError, match=reason):
        PackedTensors(stored, shapes)
