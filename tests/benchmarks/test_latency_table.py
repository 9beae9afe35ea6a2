"""Whether sums of layers' latencies rank whole files as their own latencies do."""

import copy
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.filterwarnings("ignore"),  # of torch.onnx and onnxruntime about themselves
]

DRAWN = 8
LEAST = 0.9
"""The least rank correlation of sums and wholes."""


def drawn_settings(names: list[str]) -> list[set[str]]:
    """Return sets of layers in few bits: all, each kind, the first blocks, and some at random."""
    kinds = sorted({name.split(".", 3)[3] for name in names})
    alike = [{name for name in names if name.endswith(f".{kind}")} for kind in kinds]
    first = [{name for name in names if int(name.split(".")[2]) < count} for count in (2, 4)]
    source = random.Random(0)
    return [
        set(names),
        *alike,
        *first,
        *(set(source.sample(names, source.randrange(4, 33))) for _ in range(DRAWN)),
    ]


def test_sums_over_minilms_layers_rank_whole_files(
    minilm: ModuleType, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    pytest.importorskip("optuna")
    pytest.importorskip("onnxruntime")
    from tersely.document.job import Export
    from tersely.planning.resolve import resolve
    from tersely.searching.chosen_recipes import chosen_at_once
    from tersely.searching.compressing import CalibrationData, compress
    from tersely.searching.costs.consumer import Consumer
    from tersely.searching.costs.costing import Costing
    from tersely.searching.costs.latency_table import LatencyTable
    from tersely.searching.trials.study import TrialStore
    from tersely.searching.units import units_of

    model = minilm.load()
    batch = {key: value[:1] for key, value in minilm.batches()[0][0].items()}
    recipe = {
        "quantization": {
            "preset": "w8a8",
            "for": "onnxruntime",
            "exclude_op_names_re": ["embeddings|pooler"],
        }
    }
    plan, _ = resolve(model, recipe, example_inputs=batch)
    units = units_of(plan, bits=(8,))
    export = Export(format="onnx")
    consumer = Consumer(export=export, dense=model, example_inputs=batch, folder=tmp_path)
    costing = Costing(objective="latency", dense=model, example_inputs=batch, consumer=consumer)
    store = TrialStore(
        f"sqlite:///{tmp_path / 'study.db'}",
        names=[unit.key for unit in units],
        levels=[len(unit.levels) for unit in units],
        subject={},
        seed=0,
    )
    table = LatencyTable.of(costing, plan, units, store)
    data = CalibrationData(batches=[batch])

    sums, wholes = [], []
    for setting in drawn_settings([unit.modules[0] for unit in units]):
        choices = [(one, one.levels[0]) for one in units if one.modules[0] in setting]
        session = compress(copy.deepcopy(model), chosen_at_once(plan.recipe, choices), data)
        sums.append(table.share_of(session, choices, data))
        wholes.append(costing.share_of(session))
        print(f"{len(setting)} layers: {sums[-1]:.3f}, whole {wholes[-1]:.3f}")  # noqa: T201

    ranks = torch.tensor([sums, wholes]).argsort(dim=1).argsort(dim=1).double()
    found = float(torch.corrcoef(ranks)[0, 1])
    record_property("rank correlation", found)
    print(f"rank correlation {found:.3f}")  # noqa: T201  # the result
    assert len(units) == 36
    assert found > LEAST
