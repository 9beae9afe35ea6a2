from collections.abc import Callable

import pytest
from torch import Tensor, nn

from laconic.algorithms import PruningTarget
from laconic.blocks import Blocks, element_blocks
from laconic.planning.plan import Origin, Setting, TargetPlan
from laconic.registry.registry import registry

Rank = Callable[..., Tensor]


@pytest.fixture
def rank() -> Rank:
    """Importance of a tensor by a pruner of the registry: ``rank("fpgm", tensor, (1, -1))``."""

    def rank_tensor(name, tensor, size=None):
        plan = TargetPlan(
            module="layer",
            target="weight",
            kind="parameter",
            method="pruning",
            algorithm=name,
            setting=Setting(),
            origin=Origin("pruning.config_list[0]"),
            shape=tuple(tensor.shape),
        )
        blocks = element_blocks(tensor.dim()) if size is None else Blocks(size)
        target = PruningTarget(plan=plan, tensor=tensor, blocks=blocks, module=nn.Identity())
        return registry().pruners[name]().importance(target)

    return rank_tensor
