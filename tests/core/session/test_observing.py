"""What observers of a session are told."""

import pytest
import torch

import tersely


class Notebook:
    def __init__(self):
        self.seen = []

    def observe(self, observation):
        self.seen.append(observation)

    def close(self):
        pass


@pytest.fixture
def session(toy_pruners):
    model = torch.nn.Sequential(torch.nn.Linear(4, 2, bias=False))
    config = [{"op_names": ["0"], "sparse_ratio": 0.5}]
    return tersely.attach(model, {"pruning": {"algorithm": "toy", "config_list": config}})


def test_an_observer_is_told_of_masks(session):
    notebook = Notebook()
    session.add_observer(notebook)

    session.compress()

    (seen,) = notebook.seen
    assert (seen.step, seen.event, seen.epoch) == (0, "compress", None)
    assert seen.values == {"total_sparsity": 0.5, "sparsity/0.weight": 0.5, "masked/0.weight": 4.0}


def test_numbers_of_your_own_are_passed_on_with_step_and_epoch(session):
    notebook = Notebook()
    session.compress()
    session.step()
    session.add_observer(notebook)

    session.note({"loss": 0.25}, epoch=3)

    (seen,) = notebook.seen
    assert (seen.step, seen.event, seen.epoch, seen.values) == (1, "note", 3, {"loss": 0.25})


def test_without_observers_a_note_costs_nothing_and_says_nothing(session):
    session.note({"loss": 0.25})
