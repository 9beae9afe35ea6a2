"""An interrupt in the middle of calibrating or compressing leaves nothing behind."""

import pytest
import torch
from torch import Tensor, nn

import tersely

WEIGHTS = [{"op_types": ["Linear"], "target_names": ["weight"]}]
RECIPES = {
    "sparsegpt": {
        "pruning": {"algorithm": "sparsegpt", "config_list": [{**WEIGHTS[0], "sparse_ratio": 0.5}]}
    },
    "gptq": {"quantization": {"algorithm": "gptq", "config_list": WEIGHTS}},
}


class Block(nn.Module):
    """A block that the user interrupts in one of its calls."""

    left = 0

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        Block.left -= 1
        if Block.left == 0:
            raise KeyboardInterrupt
        return x + self.drop(self.inner(x).relu())


def look(model: nn.Module) -> list[object]:
    modules = list(model.modules())
    return [
        [module.training for module in modules],
        [(len(one._forward_hooks), len(one._forward_pre_hooks)) for one in modules],
        [type(module) for module in modules],
        [parameter.requires_grad for parameter in model.parameters()],
        {name: tensor.tolist() for name, tensor in model.state_dict().items()},
        torch.is_grad_enabled(),
    ]


@pytest.mark.parametrize("algorithm", list(RECIPES))
@pytest.mark.parametrize("call", [1, 2, 4, 7, 11])
def test_an_interrupted_compress_leaves_the_model_as_it_was(algorithm: str, call: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Block(), Block(), Block())
    model[1].eval()
    session = tersely.attach(model, RECIPES[algorithm])
    Block.left = 0
    session.calibrate([torch.randn(4, 4) for _ in range(2)])
    before = look(model)

    Block.left = call
    with pytest.raises(KeyboardInterrupt):
        session.compress()

    assert look(model) == before
    session.compress()
    assert session.detach() is model
