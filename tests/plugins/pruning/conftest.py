from collections.abc import Callable

import pytest
from torch import Tensor, nn

from tersely.arithmetic.blocks import Blocks, element_blocks
from tersely.contracts.pruner import PruningTarget
from tersely.contracts.settings import PruningSetting
from tersely.contracts.target_plan import Origin, TargetPlan
from tersely.registry.registry import registry

Rank = Callable[..., Tensor]
TargetOf = Callable[..., PruningTarget]


@pytest.fixture
def target_of() -> TargetOf:
    """A target as algorithms see it: ``target_of("slim", tensor, (1, -1), learned={...})``."""

    def make(
        algorithm, tensor, size=None, *, name="weight", observed=(), learned=(), setting=(), **plan
    ):
        fields = {"kind": "parameter", "shape": tuple(tensor.shape), **plan}
        planned = TargetPlan(
            module="layer",
            target=name,
            method="pruning",
            algorithm=algorithm,
            setting=PruningSetting.of(dict(setting)),
            origin=Origin("pruning.config_list[0]"),
            **fields,
        )
        return PruningTarget(
            plan=planned,
            tensor=tensor,
            blocks=element_blocks(tensor.dim()) if size is None else Blocks(size),
            module=nn.Identity(),
            observed=dict(observed),
            learned=dict(learned),
        )

    return make


@pytest.fixture
def rank(target_of) -> Rank:
    """Importance of a tensor by a pruner of the registry: ``rank("fpgm", tensor, (1, -1))``."""

    def rank_tensor(name, tensor, size=None):
        return registry().pruners[name]().importance(target_of(name, tensor, size))

    return rank_tensor
