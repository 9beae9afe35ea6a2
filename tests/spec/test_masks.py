"""Families masks and combinations: a model with values and a recipe, and the masks in force."""

import warnings

import pytest
import torch
from messages.sessions import NOTHING_KEPT

import tersely
from tersely.reporting.report import SparsityWarning


def run_call(model, call):
    arguments = [torch.tensor(one, dtype=torch.float32) for one in call["args"]]
    return model.get_submodule(call["module"])(*arguments)


def compressed(model, given):
    session = tersely.attach(model, given["recipe"])
    if "calibration" in given:
        mask = torch.tensor(given["mask"]) if "mask" in given else None
        session.calibrate(given["calibration"], forward=run_call, mask=lambda call: mask)
    session.compress()
    return session


def effective(model, name):
    module, _, attribute = name.rpartition(".")
    return getattr(model.get_submodule(module), attribute).detach()


@pytest.mark.spec("masks")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.usefixtures("own_algorithms")
def test_masks(case, models):
    check(case, models)


@pytest.mark.spec("combinations")
@pytest.mark.filterwarnings("ignore::tersely.reporting.report.SparsityWarning")
def test_combinations(case, models):
    check(case, models)


def check(case, models):
    given, expect = case["given"], case["expect"]
    model = models.build(given["model"])
    if "error" in expect:
        with pytest.raises(tersely.TerselyError) as caught:
            compressed(model, given)
        assert all(word in str(caught.value) for word in expect["error"]), str(caught.value)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SparsityWarning)
        session = compressed(model, given)
    check_emptied(caught, expect)
    masks = by_full_name(session.masks())
    if "masks" in expect:
        assert {name: one.int().tolist() for name, one in masks.items()} == expect["masks"]
    for name, kept in expect.get("channels", {}).items():
        assert masks[name].flatten().int().tolist() == kept
    sparsity = by_full_name(session.sparsity())
    for name, share in expect.get("sparsity", {}).items():
        assert sparsity[name] == pytest.approx(share)
    for name, values in expect.get("effective", {}).items():
        assert effective(model, name).tolist() == values
    parameters = dict(model.named_parameters())
    for name, values in expect.get("parameters", {}).items():
        assert parameters[name].tolist() == values
    for call, values in zip(given.get("calls", ()), expect.get("results", ()), strict=True):
        assert run_call(model, call).tolist() == values


def check_emptied(caught, expect):
    if "emptied" in expect:
        told = [str(one.message) for one in caught if NOTHING_KEPT in str(one.message)]
        assert len(told) == bool(expect["emptied"])
        assert all(word in told[0] for word in expect["emptied"])


def by_full_name(found):
    return {
        f"{module}.{target}": value
        for module, targets in found.items()
        for target, value in targets.items()
    }
