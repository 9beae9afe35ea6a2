"""A network whose batch norms are found by `auto_fuse_names`, from its simulation to its end."""

import torch
from torch import nn

import tersely


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.act = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()
        self.second, self.two = nn.Conv2d(6, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.two(self.second(self.act(self.one(self.first(image))))) + image)


def test_found_batch_norms_fold_for_good_as_they_were_simulated() -> None:
    torch.manual_seed(0)
    model = Block().eval()
    for norm in (model.one, model.two):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    image = torch.randn(2, 3, 5, 5)
    config_list = [
        {"op_types": ["Conv2d"], "target_names": ["weight"], "granularity": "per_channel"}
    ]

    found = tersely.auto_fuse_names(model, config_list, image)
    session = tersely.quantize(model, found, algorithm="rtn")
    with torch.no_grad():
        simulated = model(image)
    folded = session.finalize()

    assert found[0]["fuse_names"] == [["first", "one", "act"], ["second", "two"]]
    assert folded.one.running_mean.tolist() == [0.0] * 6
    with torch.no_grad():
        torch.testing.assert_close(folded(image), simulated)
