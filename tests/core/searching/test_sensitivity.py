"""Layers compressed one at a time: what is measured, and what a killed analysis keeps."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from messages.files import OUTPUT_ERROR
from torch import Tensor, nn

import tersely
from tersely.errors import CalibrationError, PlanError, SessionFileError

RECIPE = {"pruning": {"algorithm": "toy", "config_list": [{"op_types": ["Linear"]}]}}
ONE_TO_FOUR = torch.tensor([[1.0, 2.0, 3.0, 4.0]])


@pytest.fixture
def four() -> nn.Module:
    """Answers 1, 2, 3 and 4 to the rows of the identity."""
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(ONE_TO_FOUR)
    return model


def total(model: nn.Module) -> float:
    return float(model[0].weight.sum())


def test_the_error_of_the_output_is_a_share_of_its_length(toy_pruners: None, four: Any) -> None:
    found = tersely.sensitivity(four, RECIPE, data=[torch.eye(4)], ratios=[0.25, 0.5])

    assert found.quality == "output error"
    # Without the 1, then without the 1 and the 2; the whole has the length sqrt(1 + 4 + 9 + 16).
    assert [one.value for one in found] == pytest.approx([math.sqrt(1 / 30), math.sqrt(5 / 30)])
    assert [one.drop for one in found] == pytest.approx(
        [100 * math.sqrt(1 / 30), 100 * math.sqrt(5 / 30)]
    )
    assert [(one.layer, one.level) for one in found] == [("0", 0.25), ("0", 0.5)]


def test_an_evaluation_is_compared_with_the_dense_one(toy_pruners: None, four: Any) -> None:
    found = tersely.sensitivity(four, RECIPE, evaluate=total, ratios=[0.5])

    assert found.dense == 10
    assert [(one.value, one.drop) for one in found] == [(7, pytest.approx(30))]


def test_of_a_cost_less_is_better(toy_pruners: None, four: Any) -> None:
    found = tersely.sensitivity(
        four,
        RECIPE,
        evaluate=lambda model: {"first": 0.0, "loss": total(model)},
        metric="loss",
        is_cost=True,
        ratios=[0.5],
    )

    assert found.measured[0].drop == pytest.approx(-30)


def test_what_is_not_finite_is_an_infinite_loss_that_json_can_hold(
    toy_pruners: None, four: Any
) -> None:
    found = tersely.sensitivity(
        four,
        RECIPE,
        evaluate=lambda model: total(model) if total(model) > 8 else math.nan,
        ratios=[0.5],
    )

    assert found.measured[0].drop == math.inf
    read = tersely.Sensitivity.from_dict(json.loads(json.dumps(found.to_dict())))
    assert read.measured[0].drop == math.inf
    assert math.isnan(read.measured[0].value)


def test_the_model_is_as_it_was(toy_pruners: None, build: Any, data: Tensor) -> None:
    model = build().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    tersely.sensitivity(model, RECIPE, data=[data])

    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(module.training for module in model.modules())
    assert type(model[0]) is nn.Linear


def test_layers_that_hurt_most_come_first(toy_pruners: None, build: Any, data: Tensor) -> None:
    model = build()
    found = tersely.sensitivity(model, RECIPE, data=[data], ratios=[0.25, 0.75])

    losses = {one.layer: one.drop for one in found if one.level == 0.75}
    assert list(found.worst_first("pruning")) == sorted(losses, key=lambda one: -losses[one])
    table = str(found).splitlines()
    assert table[0] == f"pruning: {OUTPUT_ERROR}, one layer at a time"
    assert table[1].split() == ["layer", "0.25", "sparse", "0.75", "sparse"]
    assert table[3].split()[0] == found.worst_first("pruning")[0]


def test_padding_is_left_out_of_the_comparison(toy_pruners: None) -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1, bias=False)
            with torch.no_grad():
                self.layer.weight.copy_(ONE_TO_FOUR)

        def forward(self, values: Tensor, attention_mask: Tensor) -> Tensor:
            return self.layer(values)

    values = torch.cat([torch.eye(4), torch.full((2, 4), 100.0)])[None]
    batch = {"values": values, "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0]])}

    found = tersely.sensitivity(Reader(), RECIPE, data=[batch], ratios=[0.5])

    assert found.measured[0].value == pytest.approx(math.sqrt(5 / 30))


def test_a_later_call_measures_what_is_left(toy_pruners: None, four: Any, tmp_path: Path) -> None:
    calls = []

    def evaluate(model: nn.Module) -> float:
        calls.append(total(model))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return calls[-1]

    arguments = {"evaluate": evaluate, "ratios": [0.25, 0.5, 0.75], "path": tmp_path / "lines"}
    with pytest.raises(KeyboardInterrupt):
        tersely.sensitivity(four, RECIPE, **arguments)
    found = tersely.sensitivity(four, RECIPE, **arguments)

    # The dense model each time, 0.25 once, and 0.5 again, which was interrupted.
    assert calls == [10, 9, 7, 10, 7, 4]
    assert [one.value for one in found] == [9, 7, 4]


def test_a_line_that_a_kill_cut_off_is_measured_again(
    toy_pruners: None, four: Any, tmp_path: Path
) -> None:
    place = tmp_path / "lines"
    whole = tersely.sensitivity(four, RECIPE, evaluate=total, path=place)
    content = place.read_bytes()
    place.write_bytes(content[:-5])

    assert tersely.sensitivity(four, RECIPE, evaluate=total, path=place) == whole
    assert place.read_bytes() == content


def test_a_line_that_was_changed_is_an_error_with_its_number(
    toy_pruners: None, four: Any, tmp_path: Path
) -> None:
    place = tmp_path / "lines"
    tersely.sensitivity(four, RECIPE, evaluate=total, path=place)
    place.write_text(place.read_text().replace('"9.0"', '"9.5"'))

    with pytest.raises(SessionFileError, match=r"lines:2 is damaged; give another folder"):
        tersely.sensitivity(four, RECIPE, evaluate=total, path=place)


def test_measurements_of_another_model_are_refused(
    toy_pruners: None, four: Any, tmp_path: Path
) -> None:
    tersely.sensitivity(four, RECIPE, evaluate=total, path=tmp_path / "lines")
    with torch.no_grad():
        four[0].weight.add_(1)

    with pytest.raises(SessionFileError, match="measurements of something else: model changed"):
        tersely.sensitivity(four, RECIPE, evaluate=total, path=tmp_path / "lines")


def test_measurements_of_other_levels_are_refused(
    toy_pruners: None, four: Any, tmp_path: Path
) -> None:
    tersely.sensitivity(four, RECIPE, evaluate=total, path=tmp_path / "lines")

    with pytest.raises(SessionFileError, match="levels changed"):
        tersely.sensitivity(four, RECIPE, evaluate=total, ratios=[0.1], path=tmp_path / "lines")


def test_a_file_of_something_else_is_left_alone(
    toy_pruners: None, four: Any, tmp_path: Path
) -> None:
    place = tmp_path / "notes"
    place.write_text("not measurements\n")

    with pytest.raises(SessionFileError, match="notes:1 is damaged"):
        tersely.sensitivity(four, RECIPE, evaluate=total, path=place)

    assert place.read_text() == "not measurements\n"


def test_without_anything_to_measure_by_it_says_what_to_give(toy_pruners: None, four: Any) -> None:
    with pytest.raises(CalibrationError, match=r"by evaluate, or by .* on data; give one of them"):
        tersely.sensitivity(four, RECIPE)


def test_a_metric_that_is_not_there_is_an_error_with_the_nearest_name(
    toy_pruners: None, four: Any
) -> None:
    with pytest.raises(CalibrationError, match=r"no 'acuracy', only accuracy \(did you mean"):
        tersely.sensitivity(four, RECIPE, evaluate=lambda _: {"accuracy": 1.0}, metric="acuracy")


def test_an_evaluation_that_is_no_number_is_an_error(toy_pruners: None, four: Any) -> None:
    with pytest.raises(CalibrationError, match="returned a NoneType as quality, expected a number"):
        tersely.sensitivity(four, RECIPE, evaluate=lambda _: None)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_dense_model_without_a_finite_quality_is_an_error(
    toy_pruners: None, four: Any, value: float
) -> None:
    with pytest.raises(CalibrationError, match=f"returned {value} as quality of the dense model"):
        tersely.sensitivity(four, RECIPE, evaluate=lambda _: value)


def test_a_recipe_that_varies_nothing_is_an_error(toy_losses: None, four: Any) -> None:
    entry = {"op_types": ["Linear"], "apply_method": "toy_square"}
    recipe = {"distillation": {"config_list": [entry]}}

    with pytest.raises(PlanError, match="prunes and quantizes nothing"):
        tersely.sensitivity(four, recipe, evaluate=total)


def test_who_watches_is_told_after_each_measurement(toy_pruners: None, four: Any) -> None:
    told: list[tuple[int, int]] = []

    def watching(done: int, total: int) -> None:
        told.append((done, total))

    tersely.sensitivity(four, RECIPE, evaluate=total, ratios=[0.1, 0.2], watching=watching)

    assert told == [(1, 2), (2, 2)]


def test_the_picture_names_every_layer(toy_pruners: None, build: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = tersely.sensitivity(build(), RECIPE, data=[torch.ones(1, 4)])

    found.plot(tmp_path / "found.svg")

    text = (tmp_path / "found.svg").read_text()
    assert text.startswith("<?xml")
    assert text.count(f"<title>Sensitivity of each layer: {OUTPUT_ERROR}") == 1
    assert {f">{one.layer}</text>" for one in found} <= set(re.findall(r">[^<>]*</text>", text))
