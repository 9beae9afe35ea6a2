"""A target of which nothing is kept is warned of once, whatever has decided its mask."""

import warnings
from contextlib import contextmanager

import pytest
import torch
from messages.sessions import NOTHING_KEPT
from torch import nn

import tersely
from tersely.reporting.report import SparsityWarning


def _attached(model, entry, algorithm="level", **stage):
    recipe = {"pruning": {"algorithm": algorithm, "config_list": [entry], **stage}}
    return tersely.attach(model, recipe)


def _of_values(*values):
    """Linear layers of two weights that all have one value."""
    model = nn.Sequential(*(nn.Linear(2, 1, bias=False) for _ in values))
    for layer, value in zip(model, values, strict=True):
        nn.init.constant_(layer.weight, value)
    return model


@contextmanager
def _told():
    """Collect the warnings of targets without anything."""
    told = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield told
    texts = [str(one.message) for one in caught if one.category is SparsityWarning]
    told += [text for text in texts if NOTHING_KEPT in text]


LINEAR = {"op_types": ["Linear"]}


def test_one_shot():
    with pytest.warns(SparsityWarning) as caught:
        tersely.prune(nn.Sequential(nn.Linear(4, 2)), [{**LINEAR, "sparse_ratio": 1}])
    (text,) = [str(one.message) for one in caught]
    assert text == (
        f"0.weight: {NOTHING_KEPT}; max_sparse_ratio: 0.5 in its entry keeps at least one of "
        "its 2 blocks\n"
        f"0.bias: {NOTHING_KEPT}; it follows 0.weight, whose max_sparse_ratio keeps something "
        "of both"
    )


@pytest.mark.parametrize(("rows", "ratio"), [(2, 0.5), (3, 0.7), (8, 0.9), (64, 0.99)])
def test_the_ratio_that_is_advised_keeps_one_block(rows, ratio):
    entry = {**LINEAR, "target_names": ["weight"], "granularity": "out_channel"}
    model = nn.Sequential(nn.Linear(4, rows))
    with pytest.warns(SparsityWarning, match=f"max_sparse_ratio: {ratio} in"):
        tersely.prune(model, [{**entry, "sparse_ratio": 1}], algorithm="l1_norm").detach()
    entry = {**entry, "sparse_ratio": 1, "max_sparse_ratio": ratio}
    session = tersely.prune(model, [entry], algorithm="l1_norm")
    assert session.masks()["0"]["weight"].any(1).sum() == 1


def test_one_block():
    entry = {**LINEAR, "target_names": ["weight"], "granularity": "out_channel"}
    with pytest.warns(SparsityWarning, match="it is one block, which is masked or kept whole"):
        tersely.prune(_of_values(1), [{**entry, "sparse_ratio": 1}], algorithm="l1_norm")


def test_a_threshold():
    with _told() as told:
        _attached(_of_values(1, 9), {**LINEAR, "sparse_threshold": 5}).compress()
    assert [text.partition(":")[0] for text in told] == ["0.weight"]


def test_a_global_group():
    entry = {**LINEAR, "sparse_ratio": 0.5, "global_group_id": "g"}
    with _told() as told:
        _attached(_of_values(1, 9), entry).compress()
    assert [text.partition(":")[0] for text in told] == ["0.weight"]


def test_a_dependency_group():
    entry = {**LINEAR, "sparse_ratio": 1, "dependency_group_id": "d"}
    with _told() as told:
        _attached(_of_values(1, 9), entry).compress()
    assert len(told) == 1
    assert [line.partition(":")[0] for line in told[0].splitlines()] == ["0.weight", "1.weight"]


def test_a_schedule_warns_at_the_step_that_empties_and_once():
    model = _of_values(1)
    schedule = {"name": "linear", "every": 1, "times": 2}
    session = _attached(model, {**LINEAR, "sparse_ratio": 1}, schedule=schedule)
    counts = []
    for call in (session.compress, session.step, session.step, session.step, session.compress):
        with _told() as told:
            call()
        counts.append(len(told))
    assert counts == [0, 0, 1, 0, 0]


def test_learned_masks():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 2, bias=False))
    options = {"warmup_steps": 1, "cooldown_begin_step": 2}
    session = _attached(model, {**LINEAR, "sparse_ratio": 1}, algorithm="movement", options=options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with _told() as told:
        for _ in range(4):
            optimizer.zero_grad()
            session.total_loss(model(torch.randn(3, 4)).sum()).backward()
            optimizer.step()
            session.step()
    assert len(told) == 1


def test_an_input():
    entry = {**LINEAR, "target_names": ["_input_"], "sparse_ratio": 1}
    model = nn.Sequential(nn.Linear(4, 2))
    session = _attached(model, entry)
    session.calibrate([torch.randn(3, 4)])
    with pytest.warns(SparsityWarning, match=r"0\._input_: nothing .* such as 0\.9"):
        session.compress()


def test_masks_by_hand():
    session = tersely.prune(nn.Sequential(nn.Linear(4, 2)), [{**LINEAR, "sparse_ratio": 0.5}])
    with pytest.warns(SparsityWarning) as caught:
        session.set_masks({"0": {"weight": torch.zeros(2, 4, dtype=torch.bool)}})
    assert str(caught[0].message) == (
        f"0.weight: {NOTHING_KEPT}\n"
        f"0.bias: {NOTHING_KEPT}\n"
        "set_masks() has put this in force; if this is not intended, set masks that keep "
        "something"
    )


def test_a_target_that_has_grown_back_is_warned_of_anew():
    session = _attached(_of_values(1), {**LINEAR, "sparse_ratio": 0.5})
    session.compress()
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    counts = []
    for mask in (nothing, nothing, ~nothing, nothing):
        with _told() as told:
            session.set_masks({"0": {"weight": mask}})
        counts.append(len(told))
    assert counts == [1, 0, 0, 1]


def test_many_targets_make_one_short_warning():
    with _told() as told:
        _attached(_of_values(*range(1, 16)), {**LINEAR, "sparse_ratio": 1}).compress()
    (text,) = told
    assert text.endswith("\n... and 5 more")


def test_the_report_lists_them():
    session = _attached(_of_values(1, 9), {**LINEAR, "sparse_threshold": 5})
    with _told():
        session.compress()
    assert session.report().warnings == (
        (
            f"0.weight: {NOTHING_KEPT}; max_sparse_ratio: 0.5 in its entry keeps at least one of "
            "its 2 blocks"
        ),
    )
