"""Parameters of which forward uses other values than their own: what is learned multiplies them."""

import copy

import pytest
import torch
from torch import nn

from tersely.errors import SessionError
from tersely.shrinking.shrink import shrink_module

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(help):
    torch.manual_seed(0)
    return help.lived_in(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3))
    ).double()


def test_a_bias_takes_over_what_the_values_in_use_make_of_a_constant(help, model):
    rows = help.rows(model, ["0"], help.half(8))
    reader = model[2].weight
    kept = {**rows, "2.weight": torch.ones_like(reader, dtype=torch.bool)}
    scaled = copy.deepcopy(model)
    scaled[2].weight.data.mul_(3)
    for name, mask in rows.items():
        scaled.get_parameter(name).data.mul_(mask)

    found = shrink_module(
        model, (IMAGE.double(),), {}, kept, used={"2.weight": reader.detach() * 3}
    )

    assert [one.bias for one in found.absorbed] == ["2.bias"]
    model[2].weight.data.mul_(3)
    expected = scaled(IMAGE.double())
    torch.testing.assert_close(model(IMAGE.double()), expected, rtol=1e-12, atol=1e-12)


def test_a_bias_that_is_multiplied_itself_takes_nothing_over(help, model):
    before = copy.deepcopy(model.state_dict())
    bias = model[2].bias.detach()
    kept = {
        **help.rows(model, ["0"], help.half(8)),
        "2.bias": torch.ones_like(bias, dtype=torch.bool),
    }
    with pytest.raises(SessionError) as caught:
        shrink_module(model, (IMAGE.double(),), {}, kept, used={"2.bias": bias * 3})
    assert str(caught.value) == (
        "shrink() cannot let 2.bias take constants over, since what its pruning learns multiplies "
        "it; let it follow the mask of its weight, as it does by default"
    )
    torch.testing.assert_close(model.state_dict(), before)
