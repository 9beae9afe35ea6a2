"""Family blocks: a shape and a granularity, and the blocks it is cut into."""

from typing import ClassVar

import pytest

import tersely
from tersely.arithmetic.blocks import Blocks
from tersely.planning.targets.granularity import divide


class FromCase:
    """The granularity that a case's plugin provides."""

    given: ClassVar[dict[str, object]] = {}

    def blocks(self, shape, target):
        return Blocks(**self.given)


@pytest.fixture
def plugin(case):
    """Register the granularity of a case for the time of one test."""
    provided = case["given"].get("plugin")
    if not provided:
        yield
        return
    [(name, blocks)] = provided.items()
    FromCase.given = blocks

    class Plugin:
        @tersely.hookimpl
        def tersely_granularities(self):
            reference = f"{FromCase.__module__}:FromCase"
            return [tersely.GranularityInfo(name=name, implementation=reference)]

    registered = tersely.registry().register(Plugin(), name="of_the_case")
    yield
    tersely.registry().unregister(registered)


def layer(given):
    """Describe a module of the case's type whose weight, if that is the target, has its shape."""
    two, three, kernel = {"shape": [4]}, {"shape": [8, 4, 2]}, {"shape": [8, 4, 2, 2]}
    usual = {"Linear": {"shape": [8, 4]}, "Conv1d": three, "Conv2d": kernel}
    usual |= {"Conv3d": {"shape": [8, 4, 2, 2, 2]}, "ConvTranspose2d": kernel}
    weight = {"shape": given["shape"]} if given["kind"] == "parameter" else None
    weight = weight or usual.get(given["module"], two)
    parameters = {"weight": weight} if given["module"] != "ReLU" else {}
    described = {"name": "layer", "type": given["module"], "parameters": parameters}
    return described | ({"groups": given["groups"]} if "groups" in given else {})


def blocks_of(given, models):
    target = "weight" if given["kind"] == "parameter" else f"_{given['kind']}_"
    entry = {"op_names": ["layer"], "target_names": [target]}
    if "granularity" in given:
        entry["granularity"] = given["granularity"]
    algorithm = given["algorithm"]
    method = "quantization" if algorithm in tersely.registry().quantizers else "pruning"
    recipe = {method: {"algorithm": algorithm, "config_list": [entry]}}
    model = models.build({"modules": [layer(given)]})
    [planned] = tersely.plan(model, recipe)
    if planned.blocks is not None:
        return planned.blocks
    # The shape of an input or output is learnt when it is seen first.
    catalog = (
        tersely.registry().quantizers if method == "quantization" else tersely.registry().pruners
    )
    shape = tuple(given["shape"])
    return divide(planned.setting.granularity, planned, shape, catalog.info(algorithm))


@pytest.mark.spec("blocks")
@pytest.mark.usefixtures("plugin")
def test_blocks(case, models):
    given, expect = case["given"], case["expect"]
    if "error" in expect:
        with pytest.raises((ValueError, tersely.PluginError)) as caught:
            blocks_of(given, models)
        assert all(word in str(caught.value) for word in expect["error"]), str(caught.value)
        return
    found = blocks_of(given, models)
    if "index" in expect:
        assert found == Blocks(index=expect["index"])
        return
    assert list(found.size) == expect["size"]
    assert (None if found.scope is None else list(found.scope)) == expect.get("scope")
    assert found.keep == expect.get("keep")
