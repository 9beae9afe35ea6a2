from collections.abc import Callable

import pytest

from tersely.arithmetic.blocks import Blocks
from tersely.contracts.settings import PruningSetting
from tersely.contracts.target_plan import Origin, TargetPlan
from tersely.registry.registry import registry

Cut = Callable[..., Blocks]


@pytest.fixture
def cut() -> Cut:
    """Cut a shape with a granularity of the registry: ``cut("block", shape, value=[4, 4])``."""

    def cut_shape(name, shape, *, kind="parameter", value=None, **dimensions):
        target = TargetPlan(
            module="layer",
            target="weight" if kind in ("parameter", "buffer") else f"_{kind}_",
            kind=kind,
            method="pruning",
            algorithm="level",
            setting=PruningSetting(),
            origin=Origin("pruning.config_list[0]"),
            **dimensions,
        )
        arguments = {} if value is None else {"value": value}
        return registry().granularities[name](**arguments).blocks(shape, target)

    return cut_shape
