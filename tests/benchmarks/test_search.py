"""What a search finds, against the best config that treats every layer alike."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

pytestmark = [
    pytest.mark.benchmark,
    # of torchao, which transformers imports where it is installed
    pytest.mark.filterwarnings("ignore:invalid escape sequence"),
]

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
TRIALS = 40
GAIN = 0.85
"""The found cost over the best uniform one."""

PARTS = """
import sys

sys.path.insert(0, {folder!r})
import minilm


def build():
    return minilm.load()


def batches():
    return [{{key: one[key][:, :32] for key in one}} for one in minilm.batches()[0][:1]]
"""


@pytest.fixture
def compared(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> Callable[..., float]:
    """Search a job and return the found cost over the best uniform one."""
    pytest.importorskip("optuna")
    from tersely.document.job import Job
    from tersely.searching.search.job import Wanted, search_job

    def compare(job: Job, **wanted: object) -> float:
        console = Console(file=io.StringIO())
        found = search_job(
            job, Wanted(trials=TRIALS, **wanted), output=tmp_path / "search", console=console
        )
        ratio = found.best.cost / found.best_uniform.cost
        record_property("found over uniform", ratio)
        print(found)  # noqa: T201  # the result
        return ratio

    return compare


def test_digits_need_fewer_operations_than_with_every_layer_alike(
    compared: Callable[..., float], tmp_path: Path
) -> None:
    from tersely.document.load import load_job

    for name in ("filters.yaml", "model.py", "data.py"):
        shutil.copy(EXAMPLES / "digits" / name, tmp_path)
    job = load_job(tmp_path / "filters.yaml")

    assert compared(job, max_drop=5, objective="macs") < GAIN


def test_minilm_takes_fewer_bytes_than_with_every_layer_alike(
    minilm: ModuleType, compared: Callable[..., float], tmp_path: Path
) -> None:
    from tersely.document.load import load_job

    weights = {"target_names": ["weight"], "quant_dtype": "int8", "granularity": "per_channel"}
    document = {
        "model": "minilm_parts:build",
        "data": {"calibration": "minilm_parts:batches"},
        "recipe": {
            "quantization": {
                "algorithm": "ptq",
                "config_list": [
                    {**weights, "op_names_re": [r"encoder\."], "op_types": ["Linear"]},
                    {**weights, "op_names": ["embeddings.word_embeddings"]},
                ],
            }
        },
        "output": "run",
    }
    (tmp_path / "job.json").write_text(json.dumps(document), encoding="utf-8")
    parts = PARTS.format(folder=str(Path(__file__).parent))
    (tmp_path / "minilm_parts.py").write_text(parts, encoding="utf-8")

    job = load_job(tmp_path / "job.json")

    assert compared(job, max_drop=10, objective="bytes", bits=(8, 4)) < GAIN
