"""Inputs and outputs that are pruned by what calibration sees of them (rule B8)."""

import pytest
import torch
from messages.sessions import CHECK_BATCHES, NO_BATCH, ONE_SHAPE
from torch import nn

import tersely

pytestmark = pytest.mark.usefixtures("toy_pruners")


def attach(model, target="_output_", *, name="0", algorithm="toy", **setting):
    setting = setting or {"sparse_ratio": 0.5}
    entry = {"op_names": [name], "target_names": [target], "target_settings": {target: setting}}
    return tersely.attach(model, {"pruning": {"algorithm": algorithm, "config_list": [entry]}})


def message(session, batches, **options):
    with pytest.raises(tersely.CalibrationError) as caught:
        session.calibrate(batches, **options)
    return str(caught.value)


def identity():
    return nn.Sequential(nn.Identity())


def mean_of(session):
    (statistic,) = session._engines.pruning.statistics.values()
    return statistic.mean().tolist()


def test_the_importance_is_the_mean_absolute_value_over_all_samples():
    session = attach(identity())
    session.calibrate([torch.tensor([[1.0, -5.0]]), torch.tensor([[-3.0, 1.0], [2.0, 0.0]])])
    assert mean_of(session) == [2.0, 2.0]


def test_the_least_active_elements_are_masked():
    model = identity()
    session = attach(model)
    session.calibrate([torch.tensor([[4.0, -1.0, 0.0, 3.0]])])
    session.compress()
    assert model(torch.ones(1, 4)).tolist() == [[1.0, 0.0, 0.0, 1.0]]


def test_a_threshold_is_compared_with_the_mean():
    model = identity()
    session = attach(model, sparse_threshold=2.5)
    session.calibrate([torch.tensor([[4.0, 1.0]]), torch.tensor([[1.0, 1.0]])])
    session.compress()
    assert session.masks()["0"]["_output_"].tolist() == [True, False]


def test_channels_are_ranked_over_all_positions():
    model = identity()
    session = attach(model, algorithm="toy_rows")
    session.calibrate([torch.tensor([[[1.0, 2.0], [3.0, 0.0]]])])
    assert mean_of(session) == [2.0, 1.0]
    session.compress()
    assert session.masks()["0"]["_output_"].tolist() == [[True, False], [True, False]]


def test_masks_answer_to_both_spellings_of_an_output():
    session = attach(identity())
    session.calibrate([torch.ones(1, 2)])
    session.compress()
    masks = session.masks()["0"]
    assert torch.equal(masks["_output_"], masks["_output_0"])
    assert session.sparsity()["0"]["_output_0"] == 0.5
    with pytest.raises(KeyError):
        masks["_output_1"]


@pytest.mark.parametrize(
    ("batch", "calls"),
    [
        (torch.ones(1, 2), "tensor"),
        ((torch.ones(1, 2),), "tuple"),
        ([torch.ones(1, 2)], "list"),
        ({"input": torch.ones(1, 2)}, "mapping"),
    ],
    ids=["tensor", "tuple", "list", "mapping"],
)
def test_a_batch_is_passed_as_arguments(batch, calls):
    session = attach(identity())
    session.calibrate([batch])
    assert mean_of(session) == [1.0, 1.0]


def test_a_forward_of_the_user_decides_how_a_batch_is_run():
    session = attach(identity())
    session.calibrate(
        [{"images": torch.ones(1, 2), "labels": 7}],
        forward=lambda model, batch: model(batch["images"] * 3),
    )
    assert mean_of(session) == [3.0, 3.0]


def test_batches_may_be_a_generator():
    session = attach(identity())
    session.calibrate(torch.full((1, 2), float(value)) for value in (1, 3))
    assert mean_of(session) == [2.0, 2.0]


def test_calibration_runs_in_eval_mode_without_gradients():
    model = nn.Sequential(nn.Identity(), nn.Dropout(0.9)).train()
    seen = []

    def forward(model, batch):
        seen.append((model.training, torch.is_grad_enabled(), model(batch).tolist()))

    attach(model).calibrate([torch.ones(1, 2)], forward=forward)
    assert seen == [(False, False, [[1.0, 1.0]])]
    assert model.training


def test_calibrating_again_starts_anew():
    session = attach(identity())
    session.calibrate([torch.full((1, 2), 9.0)])
    session.calibrate([torch.full((1, 2), 1.0)])
    assert mean_of(session) == [1.0, 1.0]


def test_after_calibration_nothing_observes_any_more():
    model = identity()
    session = attach(model)
    session.calibrate([torch.ones(1, 2)])
    model(torch.full((1, 2), 9.0))
    assert mean_of(session) == [1.0, 1.0]


def test_no_batch_is_an_error():
    assert message(attach(identity()), []) == f"{NO_BATCH}; pass at least one"


class Bypassing(nn.Module):
    """Calls the forward of one of its parts around the part itself."""

    def __init__(self):
        super().__init__()
        self.part = nn.Linear(2, 2)

    def forward(self, value):
        return nn.functional.linear(value, self.part.weight)


def test_a_target_that_was_never_seen_is_an_error_that_names_it():
    assert message(attach(Bypassing(), name="part"), [torch.ones(1, 2)]) == (
        "part._output_ was not seen in calibration: no batch reached it, or something calls its "
        "module's forward without calling the module; run it, or leave it out"
    )


def test_an_optional_input_that_is_always_left_out_was_never_seen():
    class Optional(nn.Module):
        def forward(self, value, extra=None):
            return value

    session = attach(Optional(), "_input_extra", name="")
    assert message(session, [torch.ones(1, 2)]).startswith(
        "_input_extra was not seen in calibration"
    )


def test_an_empty_batch_shows_nothing():
    assert message(attach(identity()), [torch.empty(0, 2)]).startswith(
        "0._output_ was not seen in calibration"
    )


def test_samples_of_two_shapes_are_an_error_that_says_what_helps():
    batches = [torch.ones(1, 3, 2), torch.ones(1, 4, 2)]
    assert message(attach(identity()), batches) == (
        f"0._output_ changes its shape between batches, from [3, 2] to [4, 2] {ONE_SHAPE}, or "
        "write granularity: per_channel, which needs the channels alone to be equal"
    )


def test_samples_of_two_shapes_do_not_matter_to_channels():
    session = attach(identity(), algorithm="toy_rows")
    session.calibrate([torch.full((1, 3, 2), 1.0), torch.full((1, 1, 2), 5.0)])
    assert mean_of(session) == [2.0, 2.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_an_error(value):
    assert message(attach(identity()), [torch.tensor([[1.0, value]])]) == (
        f"0._output_ had NaN or infinite values in calibration; {CHECK_BATCHES}"
    )


def test_a_failed_calibration_keeps_what_was_observed_before():
    session = attach(identity())
    session.calibrate([torch.full((1, 2), 7.0)])
    message(session, [torch.tensor([[1.0, torch.nan]])])
    assert mean_of(session) == [7.0, 7.0]
    session.compress()


def test_an_error_of_the_model_passes_through_and_the_session_goes_on():
    model = nn.Sequential(nn.Linear(2, 2))
    session = attach(model)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        session.calibrate([torch.ones(1, 3)])
    session.calibrate([torch.ones(1, 2)])
    session.compress()


def test_a_granularity_that_does_not_divide_what_was_seen_is_a_plan_error(toy_halves):
    session = attach(identity(), sparse_ratio=0.5, granularity="toy_halves")
    session.calibrate([torch.ones(2, 3)])
    with pytest.raises(tersely.PlanError) as caught:
        session.compress()
    assert str(caught.value).startswith("pruning.config_list[0]: 0._output_: granularity")


def test_a_module_that_is_called_twice_counts_both_calls():
    shared = nn.Identity()
    model = nn.Sequential(shared, nn.ReLU(), shared)
    session = attach(model)
    session.calibrate([torch.tensor([[-4.0, 2.0]])])
    assert mean_of(session) == [2.0, 2.0]


def test_many_samples_are_counted_exactly():
    session = attach(identity(), algorithm="toy_rows")
    session.calibrate([torch.ones(1, 1 << 24, 1), torch.ones(1, 1, 1)])
    (statistic,) = session._engines.pruning.statistics.values()
    assert statistic.count == (1 << 24) + 1


def test_a_model_without_activations_to_rank_may_be_calibrated_all_the_same(build, data):
    config_list = [{"op_types": ["Linear"], "sparse_ratio": 0.5}]
    session = tersely.prune(build(), config_list, algorithm="toy", data=[data])
    assert session.sparsity()["0"]["weight"] == 0.5
