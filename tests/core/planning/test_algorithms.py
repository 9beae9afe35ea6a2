"""Algorithms are what they declare: half an ability and contradicting needs are errors."""

import sys
import warnings
from types import ModuleType

import pytest
import torch

import tersely
from tersely import contracts
from tersely.contracts.ability_names import PRUNER_ABILITIES, QUANTIZER_ABILITIES
from tersely.planning.stages.algorithms import (
    PluginWarning,
    is_declared,
    make_pruner,
    make_quantizer,
    pruner_needs,
)


class Plain:
    def importance(self, target):
        return target.tensor.detach().abs()


class OptionCalledFactor(Plain):
    def __init__(self, *, factor=2.0):
        self.factor = factor


class PrivateSolve(Plain):
    def solve(self, matrix, right_hand_side):
        return torch.linalg.solve(matrix, right_hand_side)


class Forgotten(Plain):
    def observe_gradient(self, gradient, target):
        return {"sum": gradient.abs()}


class Misspelt(Plain):
    def observe_inputs(self, inputs, target):
        return {}


class Declared(Plain, contracts.ObservesGradients):
    def observe_gradient(self, gradient, target):
        return {"sum": gradient.abs()}


class HalfLearning(Plain, contracts.Learns):
    def start(self, target):
        return {}


class Nothing:
    pass


class Growing(Plain, contracts.Grows):
    def factor(self, steps):
        return 1.0


class OnlyDecay(contracts.FollowsTraining):
    def __init__(self):
        self.decay = 0.9


class HalfSimulating(contracts.Simulates):
    def simulate(self, value, qparams, target):
        return value


class BlockByBlock(contracts.Sequential):
    pass


class Learning(contracts.LearnsScales):
    def start(self, qparams, target):
        return {"scale": qparams.scale}

    def meaning(self, qparams, learned):
        return qparams

    def learned_values(self, value, qparams, learned, target):
        return value


@pytest.fixture
def describe():
    """Register one algorithm of this module under the name ``under_test``."""
    module = ModuleType("declared_algorithms")
    vars(module).update({key: value for key, value in globals().items() if key[0].isupper()})
    sys.modules["declared_algorithms"] = module

    def describe(cls, info=tersely.PrunerInfo, **fields):
        descriptor = info(
            name="under_test",
            implementation=f"declared_algorithms:{cls.__name__}",
            options={"type": "object"},
            **fields,
        )

        class Face:
            @tersely.hookimpl
            def tersely_pruners(self):
                return [descriptor] if info is tersely.PrunerInfo else []

            @tersely.hookimpl
            def tersely_quantizers(self):
                return [descriptor] if info is tersely.QuantizerInfo else []

        tersely.registry().register(Face(), name="declared")

    yield describe
    if any(record.name == "declared" for record in tersely.registry().plugins()):
        tersely.registry().unregister("declared")
    del sys.modules["declared_algorithms"]


def error_of(make):
    with pytest.raises(tersely.PluginError) as caught:
        make("under_test", {})
    return str(caught.value)


PRUNER = "pruner 'under_test' of declared 0+local"
QUANTIZER = "quantizer 'under_test' of declared 0+local"


@pytest.mark.parametrize("cls", [OptionCalledFactor, PrivateSolve], ids=lambda cls: cls.__name__)
def test_a_name_that_only_sounds_like_an_ability_is_none(describe, cls):
    describe(cls)
    made = make_pruner("under_test", {})

    assert not isinstance(made, (contracts.Grows, contracts.Solves))


def test_a_method_like_that_of_an_ability_is_warned_of(describe):
    describe(Forgotten)
    with pytest.warns(PluginWarning) as caught:
        make_pruner("under_test", {})

    assert str(caught[0].message) == (
        f"{PRUNER} has a method observe_gradient() that looks like that of ObservesGradients, "
        "which it does not declare, so it is never called; inherit from "
        "tersely.contracts.ObservesGradients, or rename the method"
    )


def test_an_ability_without_one_of_its_methods_is_an_error(describe):
    describe(HalfLearning)

    assert error_of(make_pruner) == (
        f"{PRUNER} declares Learns and has no masked(); write it, or do not declare Learns"
    )


def test_an_ability_without_one_of_its_attributes_is_an_error(describe):
    describe(OnlyDecay, tersely.QuantizerInfo)

    assert error_of(make_quantizer) == (
        f"{QUANTIZER} declares FollowsTraining and has no start_step; write it, or do not declare "
        "FollowsTraining"
    )


def test_simulating_without_integers_is_an_error(describe):
    describe(HalfSimulating, tersely.QuantizerInfo)

    assert "declares Simulates and has no integers();" in error_of(make_quantizer)


def test_a_switch_is_on_for_whoever_declares_it(describe):
    describe(BlockByBlock, tersely.QuantizerInfo)

    assert make_quantizer("under_test", {}).sequential is True


def test_a_pruner_without_importance_is_an_error(describe):
    describe(Nothing)

    assert error_of(make_pruner) == (
        f"{PRUNER} has no importance(target), which returns the scores of a target; write it, or "
        "inherit from tersely.contracts.Solves or tersely.contracts.ScoresModel"
    )


def test_a_quantizer_may_have_nothing_at_all(describe):
    describe(Nothing, tersely.QuantizerInfo)
    session = tersely.quantize(
        torch.nn.Sequential(torch.nn.Linear(2, 2)),
        [{"op_types": ["Linear"], "target_names": ["weight"]}],
        algorithm="under_test",
    )

    assert bool((session.qparams()["0"]["weight"].scale > 0).all())


def test_abilities_may_be_listed_in_the_descriptor(describe):
    class Listed(Forgotten):
        pass

    sys.modules["declared_algorithms"].Listed = Listed
    describe(Listed, abilities=("ObservesGradients",))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = make_pruner("under_test", {})

    assert isinstance(made, contracts.ObservesGradients)
    assert tersely.registry().pruners.info("under_test").needs == "gradients"


def test_a_listed_ability_that_the_class_lacks_is_an_error(describe):
    describe(Plain, abilities=("Solves",))

    assert error_of(make_pruner) == (
        f"{PRUNER} declares Solves and has no solve(); write it, or do not declare Solves"
    )


def test_an_ability_that_does_not_exist_is_refused_by_the_descriptor():
    with pytest.raises(ValueError, match="did you mean 'ObservesInputs'"):
        tersely.PrunerInfo(name="a", implementation="a:A", abilities=("ObserveInputs",))


def test_needs_that_are_not_stated_follow_from_what_is_inherited(describe):
    describe(Declared)

    assert pruner_needs("under_test") == "gradients"


@pytest.mark.parametrize("stated", ["nothing", "activations", "training"])
def test_needs_that_contradict_the_abilities_are_an_error(describe, stated):
    describe(Declared, needs=stated)

    assert error_of(make_pruner).startswith(
        f"{PRUNER} states needs={stated!r}, and the abilities that it declares need 'gradients';"
    )


def test_the_error_names_the_method_that_was_meant(describe):
    describe(Misspelt, needs="activations")

    assert error_of(make_pruner).endswith(
        ": its observe_inputs() looks like observe_input() of ObservesInputs"
    )


def test_a_pruner_that_grows_may_state_training(describe):
    describe(Growing, needs="training")

    assert isinstance(make_pruner("under_test", {}), contracts.Grows)


@pytest.mark.parametrize("stated", ["nothing", "activations", "training"])
def test_a_quantizer_may_need_calibration_or_training_beyond_its_abilities(describe, stated):
    describe(Nothing, tersely.QuantizerInfo, needs=stated)

    assert make_quantizer("under_test", {}) is not None


def test_a_quantizer_that_learns_needs_training(describe):
    describe(Learning, tersely.QuantizerInfo, needs="activations")

    assert "the abilities that it declares need 'training'" in error_of(make_quantizer)


def test_an_ability_can_be_told_without_making_the_algorithm(describe):
    describe(Declared)
    info = tersely.registry().pruners.info("under_test")

    assert is_declared(contracts.ObservesGradients, Declared, info)
    assert not is_declared(contracts.Grows, Declared, info)


def test_every_ability_has_its_needs():
    classes = {name for name in contracts.__all__ if isinstance(getattr(contracts, name), type)}
    abilities = {
        name for name in classes if issubclass(getattr(contracts, name), contracts.Ability)
    }

    # Nothing has to happen before exporters write, and a loss says itself what it needs.
    of_others = {"RunsExport", "StatefulLoss"}
    assert abilities - {"Ability"} - of_others == {*PRUNER_ABILITIES, *QUANTIZER_ABILITIES}
