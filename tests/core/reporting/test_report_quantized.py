"""What a report says of quantized targets, and how large quantized weights are."""

import re
from pathlib import Path
from typing import Any

import pytest
from report_rows import pruned_row

from tersely.reporting.quantized_size import QuantizedSize, bits_of, spell_bytes, spell_count
from tersely.reporting.report import Report, read_report
from tersely.reporting.rows import Moment, ReportRow


def quantized(**changes: Any) -> ReportRow:
    values = {
        "module": "fc",
        "target": "weight",
        "kind": "parameter",
        "method": "quantization",
        "algorithm": "toy",
        "granularity": "per_channel",
        "blocks": (1, -1),
        "shape": (2, 64),
        "elements": 128,
        "dtype": "int8",
        "scheme": "symmetric",
        "scales": 2,
        "scale_low": 0.125,
        "scale_high": 0.25,
    }
    return ReportRow(**{**values, **changes})


def pruned(**changes: Any) -> ReportRow:
    return pruned_row(**{"shape": (2, 64), "elements": 128, "masked": 64, **changes})


def lines_of(report: Report) -> list[list[str]]:
    return [re.split(r"\s*[│┃]\s*", line)[1:-1] for line in str(report).splitlines()]


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [("int8", 8), ("uint4", 4), ("int16", 16), ("int32", 32), ("float8_e5m2", 8), ("uint1", 1)],
)
def test_a_type_has_as_many_bits_as_its_name_says(dtype: str, bits: int) -> None:
    assert bits_of(dtype) == bits


def test_a_weight_takes_its_integers_and_a_float_for_each_scale() -> None:
    # 128 * 8 + 2 * 32 bits = 136 bytes, of 128 * 4 = 512.
    size = Report(rows=(quantized(),)).quantized_size

    assert (size.elements, size.bits, size.bits_per_weight) == (128, 1088, 8.5)
    assert size.share == 136 / 512
    assert str(size) == "512 B -> 136 B"


def test_affine_scales_have_zero_points_beside_them() -> None:
    # 128 * 4 + 2 * (32 + 4)
    row = quantized(dtype="int4", scheme="affine")

    assert row.bits == 584


def test_the_scale_of_an_accumulated_bias_is_not_stored() -> None:
    row = quantized(target="bias", shape=(2,), elements=2, dtype="int32")

    assert row.bits == 64


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "_input_", "kind": "input"},
        {"observed_only": True},
        {"scales": None, "scale_low": None, "scale_high": None},
    ],
    ids=["an input", "only observed", "not compressed"],
)
def test_what_is_not_stored_as_integers_has_no_size(changes: dict[str, Any]) -> None:
    assert Report(rows=(quantized(**changes),)).quantized_size == QuantizedSize()


def test_nothing_quantized_takes_nothing() -> None:
    size = QuantizedSize()

    assert (size.bits_per_weight, size.share) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("count", "said"),
    [(999, "999 B"), (1000, "1.0 kB"), (42_400_000, "42.4 MB"), (3 * 10**15, "3000.0 TB")],
)
def test_bytes_are_said_in_decimal_units(count: int, said: str) -> None:
    assert spell_bytes(count) == said


@pytest.mark.parametrize(
    ("count", "said"), [(25_866, "25,866"), (10_600_000, "10.6 M"), (7 * 10**9, "7.0 G")]
)
def test_weights_are_counted_as_people_do(count: int, said: str) -> None:
    assert spell_count(count) == said


def test_ten_million_weights_in_eight_bits_take_a_quarter() -> None:
    report = Report(
        rows=(quantized(elements=10_600_000, scales=1, scale_high=0.125, granularity="tensor"),)
    )

    assert str(report.quantized_size) == "42.4 MB -> 10.6 MB"
    assert [
        "all quantized weights", "", "10.6 M", "8.00 bits", "", "", "42.4 MB -> 10.6 MB",
    ] in lines_of(report)  # fmt: skip


def test_a_session_that_only_quantizes_has_no_columns_of_pruning() -> None:
    report = Report(rows=(quantized(),))

    [headings, *_] = lines_of(report)[1:]

    assert headings == ["target", "algorithm", "shape", "dtype", "scheme", "granularity", "scales"]
    assert "masked" not in str(report)
    assert [
        "fc.weight", "toy", "2x64", "int8", "symmetric", "per_channel", "2: 0.125 to 0.25",
    ] in lines_of(report)  # fmt: skip


def test_a_session_that_does_both_has_a_table_for_each() -> None:
    text = str(Report(rows=(pruned(), quantized())))

    assert "all pruned weights" in text
    assert "all quantized weights" in text
    assert text.count("fc.weight") == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scales": 1, "scale_high": 0.125}, "0.125"),
        ({"dynamic": True, "scales": None}, "at every call"),
        ({"scales": None}, "-"),
        ({"scales": 1, "observed_only": True}, "0.125, observed only"),
    ],
)
def test_scales_are_said_in_words(changes: dict[str, Any], said: str) -> None:
    assert said in [line[-1] for line in lines_of(Report(rows=(quantized(**changes),))) if line]


def test_the_page_of_a_session_that_only_quantizes_speaks_of_sizes(tmp_path: Path) -> None:
    report = Report(
        rows=(quantized(),),
        history=(Moment(step=0, event="compress", sparsity=0.0),) * 2,
        model_elements=256,
    )

    report.to_html(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")

    assert "of float32: 512 B → 136 B, 8.50 bits each" in text
    assert "50.00 % of them quantized" in text
    assert "2: 0.125 to 0.25" in text
    for absent in ("Masked", "masked", "Sparsity", "<svg"):
        assert absent not in text


def test_a_target_of_two_methods_has_one_row_on_the_page(tmp_path: Path) -> None:
    Report(rows=(pruned(), quantized()), model_elements=128).to_html(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")

    assert text.count('<th scope="row">fc.<wbr>weight</th>') == 1
    assert "50.00 % of them masked, 100.00 % quantized" in text


def test_a_page_without_quantization_does_not_speak_of_it(tmp_path: Path) -> None:
    Report(rows=(pruned(),), model_elements=128).to_html(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")

    assert "uantiz" not in text


def test_quantized_rows_come_back_from_their_file(tmp_path: Path) -> None:
    report = Report(rows=(quantized(), quantized(target="_input_", kind="input", dynamic=True)))

    report.to_json(tmp_path / "report.json")

    assert read_report(tmp_path / "report.json") == report
    assert report.to_dict()["totals"]["quantized_bits"] == 1088
