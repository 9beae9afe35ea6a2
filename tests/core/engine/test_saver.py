"""Names of saved tensors, and what optimizers remember of learned ones."""

import pytest
import torch

import tersely
from tersely.engine.state.saver import (
    MOVED,
    Grammar,
    Saved,
    moments_of,
    restore_moments,
    sort_tensors,
)

PLAIN = Grammar("", {"mask": False, "observed": True})
OTHER = Grammar("other.", {"buffer": True})
ONE = torch.ones(1)


def test_a_name_says_kind_and_target():
    assert list(PLAIN.written({("mask", "0.weight"): {"": ONE}})) == ["mask:0.weight"]


def test_a_name_says_the_part_where_a_target_has_several():
    parts = {("buffer", "0.weight"): {"scale": ONE, "low": ONE}}
    assert list(OTHER.written(parts)) == [
        "other.buffer:scale:0.weight",
        "other.buffer:low:0.weight",
    ]


@pytest.mark.parametrize("target", ["0.weight", "_output_a:b", "x._output_0:1"])
def test_names_are_read_as_they_were_written(target):
    parts = {("mask", target): {"": ONE}, ("observed", target): {"gram": ONE}}
    assert sort_tensors(PLAIN.written(parts), {"plain": PLAIN}) == {"plain": parts}


def test_the_longest_prefix_tells_whose_a_tensor_is():
    tensors = {"other.buffer:scale:0.weight": ONE, "mask:other.weight": ONE}
    found = sort_tensors(tensors, {"plain": PLAIN, "other": OTHER})
    assert list(found["plain"]) == [("mask", "other.weight")]
    assert list(found["other"]) == [("buffer", "0.weight")]


@pytest.mark.parametrize("key", ["0.weight", "mosk:0.weight", "observed:0.weight", "other.x:0:1"])
def test_a_name_that_nobody_writes_is_refused(key):
    with pytest.raises(tersely.SessionFileError, match=f"the saved session has {key!r}"):
        sort_tensors({key: ONE}, {"plain": PLAIN, "other": OTHER})


def leaves():
    """Two learned tensors of one target and one of another."""
    return {
        key: torch.zeros(1, requires_grad=True)
        for key in (("0.weight", "scale"), ("0.weight", "zero_point"), ("1.weight", "scale"))
    }


def test_moments_come_back_to_their_tensor_in_whatever_order():
    learned = leaves()
    optimizer = torch.optim.SGD(list(learned.values()), lr=1.0, momentum=0.5)
    for number, leaf in enumerate(learned.values()):
        leaf.grad = torch.full((1,), float(number))
    optimizer.step()
    saved = Saved(moments_of(optimizer, learned), {})
    again = leaves()
    other = torch.optim.SGD(list(again.values())[::-1], lr=1.0, momentum=0.5)

    restore_moments(other, again, saved)

    found = [other.state[leaf]["momentum_buffer"].item() for leaf in again.values()]
    assert found == [0, 1, 2]


def test_what_no_optimizer_moves_has_no_moments():
    assert moments_of(None, leaves()) == {}
    restore_moments(None, leaves(), Saved({(MOVED, "0.weight"): {"exp_avg/scale": ONE}}, {}))
