"""The HTML page: whole, self-contained, escaped, and readable for one target or thousands."""

import math
import re
from pathlib import Path
from typing import Any

import attrs
import matplotlib as mpl
import pytest
from messages.shrinking import OUTPUT_OF_MODEL
from pages import Accessible, Balance
from report_rows import pruned_row

from tersely.reporting.report import Report
from tersely.reporting.rows import Layer, Moment, Remark, ReportRow
from tersely.shrinking.report import Row as ShrunkRow
from tersely.shrinking.report import Shrunk, Smaller, Stay


def row(number: int = 0, **changes: Any) -> ReportRow:
    return pruned_row(**{"module": f"layers.{number}", **changes})


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

    assert not re.findall(r"\bsrc=|@import|<link|fetch\(|XMLHttp", text)
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_the_page_shows_totals_metrics_and_warnings(tmp_path: Path) -> None:
    text = page(FULL, tmp_path, title="Digits")

    for wanted in (
        "<title>Digits</title>",
        "layers.1.weight: asked for more",
        "before 0.75, change -0.125",
        "layers.0.bias is skipped",
        "tersely 0.1.0, torch 2.13.0",
    ):
        assert wanted in text


def test_a_page_has_a_picture_of_sparsity_metrics_and_history(tmp_path: Path) -> None:
    labels = re.findall(r'<svg role="img" aria-label="([^"]+)"', page(FULL, tmp_path))

    # Those of sparsity are drawn twice: for wide pages, and for narrow ones.
    assert labels == [
        "Sparsity of every pruned target",
        "Sparsity of every pruned target",
        "Sparsity over the steps",
        "Sparsity over the steps",
        "Measurements before and after",
    ]


def test_pictures_take_their_colours_from_the_style_sheet(tmp_path: Path) -> None:
    text = page(FULL, tmp_path)
    pictures = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))

    assert set(re.findall(r"var\(--[a-z-]+\)", pictures)) >= {"var(--accent)", "var(--alarm)"}
    assert "prefers-color-scheme: dark" in text


def test_names_are_escaped(tmp_path: Path) -> None:
    report = Report(rows=(row(module="<b>&"),), warnings=("<i>",))

    text = page(report, tmp_path, title="<script>")

    assert "<title>&lt;script&gt;</title>" in text
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

    assert re.findall(r">([78])</text>", text) == ["7", "8", "7", "8"]
    assert "backbone.encoder.layers.7.attention.output.weight" in text


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


def block(number: int) -> tuple[ReportRow, ReportRow]:
    names = [f"layers.{number}.{part}" for part in ("query", "value")]
    first, second = (row(module=name, sparsity=0.25 + number / 8) for name in names)
    return first, second


def compared(module: str, **changes: Any) -> Layer:
    counts = {"low": -1.0, "high": 1.0, "before": (4,) * 24, "after": (2,) * 24}
    values = {"module": module, "kind": "Linear", "weight": "weight", **counts, **changes}
    return Layer(**values)


def test_targets_of_repeated_blocks_are_one_group(tmp_path: Path) -> None:
    text = page(Report(rows=(*block(0), *block(1), *block(2))), tmp_path)

    assert text.count('<th scope="rowgroup">') == 1
    assert "layers.<wbr>{0.<wbr>.<wbr>2}.<wbr>{query,value}.<wbr>weight" in text
    assert "25.00 % to 50.00 %" in text
    assert text.count('<th scope="row">layers.') == 6


def test_a_layer_is_shown_with_its_error_and_its_weights(tmp_path: Path) -> None:
    layers = (compared("layers.0", signal_to_noise=20.04), compared("layers.1", is_exact=True))

    text = page(Report(rows=(row(0), row(1)), layers=layers), tmp_path)

    assert "20.0 dB</td>" in text
    assert "exact</td>" in text
    assert 'aria-label="weights from -1 to 1"' in text


def test_a_group_spans_the_errors_of_its_targets(tmp_path: Path) -> None:
    layers = tuple(compared(f"layers.{n}", signal_to_noise=10.0 * (n + 1)) for n in (0, 1))

    assert "10.0 dB to 20.0 dB" in page(Report(rows=(row(0), row(1)), layers=layers), tmp_path)


def test_a_layer_that_was_not_compared_says_why(tmp_path: Path) -> None:
    layers = (compared("layers.0", why="it is smaller now"),)

    text = page(Report(rows=(row(0),), layers=layers), tmp_path)

    assert "Not compared with the dense layer" in text
    assert "layers.0: it is smaller now" in text


def shrunk() -> Shrunk:
    return Shrunk(
        rows=(ShrunkRow("layers.0", "weight", 0, 4, 2),),
        stays=(Stay("layers.1.weight", 0, 3, OUTPUT_OF_MODEL, "leave it out"),),
        absorbed=(),
        parameters=(64, 48),
        macs=(1000, 750),
        bytes=(256, 192),
        modules=(Smaller(module="layers.0", parameters=(16, 8), macs=(8, 4), bytes=(64, 32)),),
        error=0.0,
        in_float64=True,
    )


def test_a_shrunk_model_shows_what_went(tmp_path: Path) -> None:
    rows = (row(0, masked=0, sparsity=0.0, requested=0.5),)
    text = page(Report(rows=rows, shrinks=(shrunk(),), model_elements=48), tmp_path)

    assert "75.00 % of 64 before" in text
    assert "75.00 % of 1,000 before" in text or "75.00 % of 1 k before" in text
    assert "removed 50.00 %" in text
    assert "4x4 -&gt; 2x4" in text
    assert "Masked, but not removed" in text
    assert "Sparsity of every pruned target" not in text


def test_the_page_shows_the_recipe(tmp_path: Path) -> None:
    recipe = {"pruning": {"algorithm": "level", "config_list": [{"op_types": ["Linear"]}]}}

    assert "algorithm: level" in page(Report(rows=(row(),), recipe=recipe), tmp_path)


def test_numbers_people_look_for_come_first(tmp_path: Path) -> None:
    report = attrs.evolve(
        FULL, files={"dense": 1000, "model.onnx": 250}, macs={"before": 8, "after": 8}
    )

    terms = re.findall(r"<dt>(.*?)</dt>", page(report, tmp_path))

    assert terms == [
        "Accuracy after",
        "Bytes on disk",
        "Multiply-accumulates of a call",
        "Parameters in the model",
        "Sparsity of the pruned weights",
    ]


def test_a_page_of_a_thousand_compared_targets_is_below_a_megabyte(tmp_path: Path) -> None:
    names = [
        f"model.encoder.layers.{n // 6}.attention.{'abcdef'[n % 6]}_projection" for n in range(1000)
    ]
    hill = tuple(round(1000 * math.exp(-(((n - 12) / 5) ** 2))) for n in range(24))
    report = Report(
        rows=tuple(row(module=name, sparsity=0.3 + n / 3000) for n, name in enumerate(names)),
        layers=tuple(
            compared(name, signal_to_noise=20 + n / 100, before=hill, after=hill)
            for n, name in enumerate(names)
        ),
    )

    assert len(page(report, tmp_path).encode()) < 1_000_000


def test_headers_have_scopes_pictures_have_texts_and_fields_have_labels(tmp_path: Path) -> None:
    layers = (compared("layers.0", signal_to_noise=20.0),)
    parser = Accessible()

    parser.feed(page(attrs.evolve(FULL, layers=layers, shrinks=(shrunk(),)), tmp_path))

    assert parser.faults == []
    assert parser.seen >= {"th", "svg", "input", "table", "h1", "h2"}
