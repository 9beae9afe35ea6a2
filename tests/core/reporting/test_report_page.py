"""The HTML page: whole, self-contained, escaped, and readable for one target or thousands."""

import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from pages import Balance

from tersely.reporting.report import Report
from tersely.reporting.rows import Moment, Remark, ReportRow


def row(number: int = 0, **changes: Any) -> ReportRow:
    values = {
        "module": f"layers.{number}",
        "target": "weight",
        "kind": "parameter",
        "method": "pruning",
        "algorithm": "level",
        "granularity": "default",
        "blocks": (1, 1),
        "shape": (2, 4),
        "elements": 8,
        "masked": 4,
        "request": "0.5",
        "requested": 0.5,
        "sparsity": 0.5,
    }
    return ReportRow(**{**values, **changes})


FULL = Report(
    rows=(row(0), row(1, missed=True), row(2, method="quantization", sparsity=None, masked=None)),
    warnings=("layers.1.weight: asked for more",),
    remarks=(Remark(kind="skipped", text="layers.0.bias is skipped"),),
    metrics={"before.accuracy": 0.75, "compressed.accuracy": 0.5, "after.accuracy": 0.625},
    history=(
        Moment(step=0, event="compress", sparsity=0.25),
        Moment(step=5, event="step", sparsity=0.5),
    ),
    versions={"tersely": "0.1.0", "torch": "2.13.0"},
    model_elements=32,
)


def page(report: Report, folder: Path, **options: Any) -> str:
    report.to_html(folder / "report.html", **options)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_its_ids_are_unique(tmp_path: Path) -> None:
    parser = Balance()

    parser.feed(page(FULL, tmp_path))

    assert (parser.open, parser.crossed) == ([], [])
    assert len(parser.ids) == len(set(parser.ids))


def test_every_reference_inside_the_page_has_its_target(tmp_path: Path) -> None:
    text = page(FULL, tmp_path)

    wanted = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))

    assert wanted <= set(re.findall(r'\bid="([^"]+)"', text))


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    text = page(FULL, tmp_path)

    addresses = set(re.findall(r'https?://[^"\s<)]+', text))

    assert not re.findall(r"\bsrc=|@import|<script|<link", text)
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_the_page_shows_totals_metrics_and_warnings(tmp_path: Path) -> None:
    text = page(FULL, tmp_path, title="Digits")

    for wanted in (
        "<title>Digits</title>",
        "layers.1.weight: asked for more",
        "before 0.75, change\n-0.125",
        "layers.0.bias is skipped",
        "tersely 0.1.0, torch 2.13.0",
    ):
        assert wanted in text


def test_a_page_has_a_picture_of_sparsity_metrics_and_history(tmp_path: Path) -> None:
    labels = re.findall(r'<svg role="img" aria-label="([^"]+)"', page(FULL, tmp_path))

    assert labels == [
        "Sparsity of every pruned target",
        "Measurements before and after",
        "Sparsity over the steps",
    ]


def test_pictures_take_their_colours_from_the_style_sheet(tmp_path: Path) -> None:
    text = page(FULL, tmp_path)
    pictures = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))

    assert set(re.findall(r"var\(--[a-z-]+\)", pictures)) >= {"var(--accent)", "var(--alarm)"}
    assert "prefers-color-scheme: dark" in text


def test_names_are_escaped(tmp_path: Path) -> None:
    report = Report(rows=(row(module="<b>&"),), warnings=("<i>",))

    text = page(report, tmp_path, title="<script>")

    assert "<script" not in text
    assert "<b>&" not in text
    assert "&lt;i&gt;" in text


def test_the_same_report_gives_the_same_page(tmp_path: Path) -> None:
    assert page(FULL, tmp_path) == page(FULL, tmp_path)


@pytest.mark.parametrize("count", [1, 41, 1000])
def test_a_page_holds_any_number_of_targets(tmp_path: Path, count: int) -> None:
    text = page(Report(rows=tuple(row(number) for number in range(count))), tmp_path)

    assert text.count('<th scope="row">layers.') == count
    assert text.count("Sparsity per target") == 1


def test_a_report_without_anything_has_a_page(tmp_path: Path) -> None:
    assert "0 targets" in page(Report(rows=()), tmp_path)


def test_metrics_that_are_not_finite_have_a_page(tmp_path: Path) -> None:
    metrics = {"before": float("nan"), "after": float("-inf")}

    assert "-inf" in page(Report(rows=(), metrics=metrics), tmp_path)


def test_a_name_with_dollars_is_text_and_not_a_formula(tmp_path: Path) -> None:
    report = Report(rows=(row(module="a$_$b"),))

    assert "a$_$b.weight" in page(report, tmp_path)


def test_a_name_in_any_script_is_shown(tmp_path: Path) -> None:
    report = Report(rows=(row(module="编码器"),))

    assert "编码器.weight</text>" in page(report, tmp_path)


def test_long_names_lose_the_parts_that_all_share_in_a_picture(tmp_path: Path) -> None:
    names = [f"backbone.encoder.layers.{number}.attention.output" for number in (7, 8)]
    report = Report(rows=tuple(row(module=name) for name in names))

    text = page(report, tmp_path)

    assert re.findall(r">([78])</text>", text) == ["7", "8"]
    assert "backbone.<wbr>encoder.<wbr>layers.<wbr>7." in text


def test_drawing_leaves_the_settings_of_matplotlib_alone(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)

    page(FULL, tmp_path)

    assert dict(mpl.rcParams) == before


def test_a_page_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = page(FULL, tmp_path)

    def fail(path: Path, target: Path) -> None:
        raise OSError("no")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no"):
        Report(rows=()).to_html(tmp_path / "report.html")

    assert (tmp_path / "report.html").read_text(encoding="utf-8") == old
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
