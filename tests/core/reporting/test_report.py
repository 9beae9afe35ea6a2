"""What a report says of a session, and that it comes back from its file."""

import json
import math
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from messages.documents import KEY_IN_QUOTES
from messages.files import INCOMPLETE_JSON, WRITING_VERSION, no_report
from messages.sessions import NOTHING_KEPT, asked_for
from messages.shrinking import ONE_STAYS
from report_rows import pruned_row as row
from torch import nn

import tersely
from tersely.errors import SessionFileError
from tersely.reporting.report import Report, SparsityWarning, read_report
from tersely.reporting.rows import Moment, Remark
from tersely.shrinking.report import Row as ShrunkRow
from tersely.shrinking.report import Shrunk, Stay

pytestmark = pytest.mark.usefixtures("toy_pruners")


def prune(model: nn.Module, *config_list: dict[str, Any], algorithm: str = "toy") -> Report:
    return tersely.prune(model, list(config_list), algorithm=algorithm).report()


def test_a_row_counts_the_masked_elements() -> None:
    report = prune(nn.Sequential(nn.Linear(4, 2)), {"op_types": ["Linear"], "sparse_ratio": 0.5})

    weight = report.rows[0]

    assert (weight.name, weight.shape, weight.blocks) == ("0.weight", (2, 4), (1, 1))
    assert (weight.elements, weight.masked, weight.sparsity) == (8, 4, 0.5)
    assert (weight.request, weight.requested, weight.missed) == ("0.5", 0.5, False)


def test_an_aligned_row_says_whom_it_follows_and_has_no_request_of_its_own() -> None:
    report = prune(
        nn.Sequential(nn.Linear(4, 2)),
        {"op_types": ["Linear"], "sparse_ratio": 0.5},
        algorithm="toy_rows",
    )

    bias = report.rows[1]

    assert (bias.name, bias.request, bias.requested) == ("0.bias", "follows weight", None)
    assert (bias.masked, bias.elements) == (1, 2)


def test_totals_count_weights_and_biases_together() -> None:
    report = prune(
        nn.Sequential(nn.Linear(4, 2)),
        {"op_types": ["Linear"], "sparse_ratio": 0.5},
        algorithm="toy_rows",
    )

    assert (report.masked, report.elements, report.sparsity) == (5, 10, 0.5)
    assert report.model_elements == 10


def test_an_activation_is_in_no_total() -> None:
    report = Report(rows=(row(), row(target="_output_", kind="output", elements=6, masked=6)))

    assert (report.masked, report.elements) == (4, 8)


def test_a_ratio_that_rounds_down_within_one_block_is_no_miss() -> None:
    report = prune(nn.Sequential(nn.Linear(5, 1)), {"op_types": ["Linear"], "sparse_ratio": 0.5})

    assert report.rows[0].masked == 2
    assert report.warnings == ()


def test_a_ratio_too_small_for_the_blocks_is_a_loud_miss() -> None:
    model = nn.Sequential(nn.Linear(4, 3))

    with pytest.warns(SparsityWarning, match=f"0.weight: {asked_for(0.2)}, got 0"):
        report = prune(model, {"op_types": ["Linear"], "sparse_ratio": 0.2}, algorithm="toy_rows")

    assert report.rows[0].missed
    assert report.warnings == (
        (
            f"0.weight: {asked_for(0.2)}, got 0 (0 of 12 elements masked); it has 3 blocks, too "
            "few for that ratio: choose a finer granularity or a larger ratio"
        ),
    )


def test_masks_that_were_changed_by_hand_are_a_miss() -> None:
    model = nn.Sequential(nn.Linear(4, 2, bias=False))
    session = tersely.prune(model, [{"op_types": ["Linear"], "sparse_ratio": 0.5}], algorithm="toy")
    tensors, data = session.state()
    session.restore({name: torch.zeros(2, 4, dtype=torch.bool) for name in tensors}, data)

    report = session.report()

    assert report.warnings == (
        (
            f"0.weight: {asked_for(0.5)}, got 1 (8 of 8 elements masked); call "
            "session.compress(), or session.step() until the algorithm has scores"
        ),
    )


def test_bounds_count_as_the_request() -> None:
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.5, "max_sparse_ratio": 0.25}

    report = prune(nn.Sequential(nn.Linear(4, 2)), entry)

    assert (report.rows[0].requested, report.rows[0].masked) == (0.25, 2)
    assert report.rows[0].request == "0.5, at most 0.25"
    assert report.warnings == ()


@pytest.mark.filterwarnings(f"ignore:.*{NOTHING_KEPT}")
def test_a_global_group_is_judged_as_a_whole() -> None:
    model = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 4, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[1].weight.fill_(2.0)
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.5, "global_group_id": "all"}

    report = prune(model, entry)

    assert [one.masked for one in report.rows] == [8, 0]
    assert report.rows[0].request == "0.5, over group all"
    assert [one.partition(";")[0] for one in report.warnings] == [f"0.weight: {NOTHING_KEPT}"]


@pytest.mark.filterwarnings(f"ignore:.*{NOTHING_KEPT}")
def test_a_threshold_asks_for_no_sparsity() -> None:
    report = prune(
        nn.Sequential(nn.Linear(4, 2)), {"op_types": ["Linear"], "sparse_threshold": 1e9}
    )

    assert report.rows[0].request == "importance >= 1e+09"
    assert (report.rows[0].requested, report.rows[0].sparsity) == (None, 1.0)


def test_an_unfinished_schedule_is_a_remark_and_no_miss() -> None:
    recipe = {
        "pruning": {
            "algorithm": "toy",
            "schedule": {"name": "toy_line", "every": 2, "times": 3},
            "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5}],
        }
    }
    session = tersely.attach(nn.Sequential(nn.Linear(4, 2)), recipe)
    session.compress()
    session.step()

    report = session.report()

    assert report.warnings == ()
    assert report.remarks == (
        Remark(
            kind="progress",
            text="pruning: the schedule is at step 1 of 6; sparsity still grows",
        ),
    )


def test_a_finished_schedule_is_judged_and_its_history_is_kept() -> None:
    recipe = {
        "pruning": {
            "algorithm": "toy",
            "schedule": {"name": "toy_line", "times": 2},
            "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5}],
        }
    }
    session = tersely.attach(nn.Sequential(nn.Linear(4, 2, bias=False)), recipe)
    session.compress()
    session.step()
    session.step()

    report = session.report()

    assert "progress" not in [remark.kind for remark in report.remarks]
    assert [(one.step, one.sparsity) for one in report.history] == [(0, 0.0), (1, 0.25), (2, 0.5)]


def test_a_session_without_masks_says_what_to_call() -> None:
    recipe = {
        "pruning": {
            "algorithm": "toy",
            "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5}],
        }
    }

    report = tersely.attach(nn.Sequential(nn.Linear(4, 2)), recipe).report()

    assert report.rows[0].sparsity is None
    assert [one.text for one in report.remarks] == [
        "not everything has a mask yet; call session.compress()"
    ]


def test_remarks_of_the_plan_are_in_the_report() -> None:
    model = nn.Sequential(nn.Linear(4, 2, bias=False))

    report = prune(model, {"op_types": ["Linear"], "sparse_ratio": 0.5}, algorithm="toy_rows")

    assert [one.kind for one in report.remarks] == ["skipped"]
    assert report.remarks[0].text.startswith("0.bias: ")


def test_versions_name_tersely_torch_and_the_plugins() -> None:
    report = prune(nn.Sequential(nn.Linear(4, 2)), {"op_types": ["Linear"], "sparse_ratio": 0.5})

    assert list(report.versions)[:2] == ["tersely", "torch"]
    assert report.versions["tersely-toy"] == "0+local"


def test_a_report_comes_back_from_its_file(tmp_path: Path) -> None:
    report = Report(
        rows=(row(), row(target="_input_", kind="input", shape=None, blocks=None, masked=None)),
        warnings=("careful",),
        remarks=(Remark(kind="hint", text="mind"),),
        metrics={"before": 0.9, "after.loss": 0.25},
        history=(Moment(step=0, event="compress", sparsity=0.5),),
        versions={"tersely": "0.1.0"},
        model_elements=10,
    )

    report.to_json(tmp_path / "report.json")

    assert read_report(tmp_path / "report.json") == report


def test_numbers_that_are_not_finite_become_null_in_json(tmp_path: Path) -> None:
    report = Report(rows=(), metrics={"after": math.nan})

    report.to_json(tmp_path / "report.json")

    assert json.loads((tmp_path / "report.json").read_text())["metrics"] == {"after": None}
    assert math.isnan(read_report(tmp_path / "report.json").metrics["after"])


def test_a_missing_report_file_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(SessionFileError) as caught:
        read_report(tmp_path / "report.json")

    assert str(caught.value) == no_report(tmp_path / "report.json")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", f"{INCOMPLETE_JSON} (Expecting {KEY_IN_QUOTES}: line 1 column 2 (char 1)); run the job again"),
        ("{}", "is not a report: it has no format 'tersely-report'"),
        ('{"format": "tersely-report", "version": 9}', f"has report format 9, this tersely reads 1; run the job again or {WRITING_VERSION}"),
        ('{"format": "tersely-report", "version": 1}', "is damaged: 'rows' is a required property; run the "
         "job again"),
    ],
    ids=["cut", "foreign", "newer", "incomplete"],
)  # fmt: skip
def test_a_damaged_report_file_says_how(tmp_path: Path, content: str, said: str) -> None:
    place = tmp_path / "report.json"
    place.write_text(content)

    with pytest.raises(SessionFileError) as caught:
        read_report(place)

    assert str(caught.value) == f"{place} {said}"


def test_the_table_has_a_line_for_each_target_and_one_for_all() -> None:
    report = Report(rows=(row(), row(module="head", masked=2, sparsity=0.25)))

    lines = [re.split(r"\s*[│┃]\s*", line)[1:-1] for line in str(report).splitlines()]

    assert ["fc.weight", "level", "1x1", "2x4", "0.5", "4 / 8", "50.00 %"] in lines
    assert ["head.weight", "level", "1x1", "2x4", "0.5", "2 / 8", "25.00 %"] in lines
    assert ["all pruned weights", "", "", "", "", "6 / 16", "37.50 %"] in lines


def test_the_table_shows_a_measure_at_its_moments() -> None:
    report = Report(rows=(), metrics={"before.accuracy": 0.75, "after.accuracy": 0.5})

    lines = [re.split(r"\s*[│┃]\s*", line)[1:-1] for line in str(report).splitlines()]

    assert ["measure", "before", "after"] in lines
    assert ["accuracy", "0.75", "0.5"] in lines


def test_a_miss_stands_out_in_the_table() -> None:
    text = str(Report(rows=(row(missed=True),), warnings=("fc.weight: asked for more",)))

    assert text.startswith("WARNING fc.weight: asked for more")
    assert "50.00 % !" in text


def test_a_printed_report_has_no_colours() -> None:
    text = str(Report(rows=(row(missed=True),), warnings=("careful",)))

    assert "\x1b" not in text


def test_a_name_in_brackets_is_printed_as_it_is() -> None:
    assert "[red]x.weight" in str(Report(rows=(row(module="[red]x"),)))


def test_a_report_is_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Report(rows=()).metrics = {}  # type: ignore[misc]  # that is the point


def shrunk(*stays: Stay) -> Shrunk:
    nothing = (0, 0)
    return Shrunk(
        rows=(ShrunkRow("0", "weight", 0, 4, 2), ShrunkRow("0", "weight", 1, 8, 6)),
        stays=stays,
        absorbed=(),
        parameters=nothing,
        macs=nothing,
        bytes=nothing,
        modules=(),
        error=0.0,
        in_float64=True,
    )


def test_a_pruned_target_shows_what_shrinking_removed_of_it() -> None:
    report = Report(rows=(row(module="0"), row(module="1")), shrinks=(shrunk(),))

    lines = [line for line in str(report).splitlines() if ".weight" in line]

    assert ["62.50 %" in line for line in lines] == [True, False]


def test_slices_that_stay_for_one_reason_are_one_line() -> None:
    stays = [Stay(f"{layer}.weight", 0, 2, f"{layer + 1} reads it", "align") for layer in range(4)]
    others = [Stay("9.weight", 0, 1, f"{ONE_STAYS} 9")]

    text = str(Report(rows=(row(module="0"),), shrinks=(shrunk(*stays, *others),)))

    assert [line for line in text.splitlines() if "stay" in line] == [
        "{0..3}.weight: 8 masked slices stay, those of 0.weight because 1 reads it; what frees them: align",
        str(others[0]),
    ]
