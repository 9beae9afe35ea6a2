"""Calls of the public functions and of a session, as a user's script makes them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

from torch import Tensor, nn

import tersely

MODEL = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
RECIPE = {
    "pruning": {
        "algorithm": "l1_norm",
        "schedule": {"name": "agp", "begin": 0, "every": 100, "times": 10},
        "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5}],
    }
}


def one_call_each(teacher: nn.Module, batches: list[Tensor]) -> None:
    """One-shot functions take literals as they are written and return sessions."""
    pruned = tersely.prune(MODEL, [{"op_types": ["Linear"], "sparse_ratio": 0.5}])
    assert_type(pruned, tersely.Session)
    quantized = tersely.quantize(
        MODEL,
        [{"op_types": ["Linear"], "target_names": ["_input_", "weight"], "quant_dtype": "int8"}],
        algorithm="ptq",
        options={},
        data=batches,
        forward=lambda model, batch: model(batch),
    )
    assert_type(quantized, tersely.Session)
    distilled = tersely.distill(MODEL, [{"op_names": ["2"], "lambda": 0.5}], teacher=teacher)
    assert_type(distilled, tersely.Session)


def typed_entries() -> None:
    """Entries stand wherever a mapping does, alone or beside others."""
    half = tersely.PruningEntry(op_types=["Linear"], sparse_ratio=0.5)
    assert_type(tersely.prune(MODEL, [half]), tersely.Session)
    assert_type(
        tersely.prune(MODEL, [half, {"op_names": ["2"], "sparse_ratio": 0.2}]), tersely.Session
    )
    stage = {"algorithm": "l1_norm", "config_list": [half]}
    assert_type(tersely.Recipe(pruning=stage, strict=True), tersely.Recipe)
    assert_type(half.to_dict(), dict[str, Any])
    assert_type(tersely.plugin_api, tuple[int, int])


def plans(path: Path) -> None:
    """Recipes come from a mapping, a path or a string."""
    assert_type(tersely.load_recipe(RECIPE), tersely.Recipe)
    assert_type(tersely.load_recipe(path), tersely.Recipe)
    assert_type(tersely.load_recipe("recipe.yaml"), tersely.Recipe)
    plan = tersely.plan(MODEL, RECIPE, teacher=None)
    assert_type(plan, tersely.Plan)
    assert_type(tersely.summarize_plan(plan, MODEL, width=100), str)
    assert_type(len(plan), int)
    for target in plan:
        assert_type(target, tersely.TargetPlan)
        assert_type(target.module, str)
        assert_type(target.shape, tuple[int, ...] | None)
        assert_type(target.blocks, tersely.Blocks | None)
    assert_type(tersely.attach(MODEL, plan), tersely.Session)
    assert_type(tersely.attach(MODEL, RECIPE), tersely.Session)


def training(session: tersely.Session, batches: Iterator[tuple[Tensor, Tensor]]) -> nn.Module:
    """A training loop adds the session's loss and calls its step."""
    session.calibrate([inputs for inputs, _ in batches])
    session.compress()
    learned = session.parameters()
    assert_type(learned, Iterator[Tensor])
    for inputs, labels in batches:
        loss = nn.functional.cross_entropy(session.model(inputs), labels)
        assert_type(session.teacher_forward(inputs), Any)
        assert_type(session.total_loss(loss), Tensor)
        assert_type(session.loss(), Tensor)
        session.step()
    model = session.finalize()
    assert_type(model, nn.Module)
    return model


def results(session: tersely.Session, folder: Path) -> None:
    """What a session shows has types down to the tensors."""
    assert_type(session.masks(), dict[str, dict[str, Tensor]])
    assert_type(session.qparams(), dict[str, dict[str, tersely.QParams]])
    assert_type(session.sparsity(), dict[str, dict[str, float]])
    qparams = session.qparams()["0"]["weight"]
    assert_type(qparams.scale, Tensor)
    assert_type(qparams.zero_point, Tensor)
    assert_type(session.report(), tersely.Report)
    session.report().to_html(folder / "report.html")
    session.set_masks({"0": {"weight": session.masks()["0"]["weight"]}}, freeze=True)
    session.save(folder)
    again = tersely.load_session(MODEL, folder, teacher=None)
    assert_type(again, tersely.Session)
    assert_type(again.detach(), nn.Module)


def problems() -> None:
    """Errors are caught as themselves or as the builtin that they are."""
    try:
        tersely.load_recipe("recipe.yaml")
    except tersely.ConfigError as error:
        for problem in error.problems:
            assert_type(problem, tersely.Problem)
            assert_type(problem.line, int | None)
            assert_type(problem.fix, tersely.Fix | None)
    builtin: type[ValueError] = tersely.ConfigError
    lookup: type[LookupError] = tersely.UnknownPluginError
    assert issubclass(builtin, Exception)
    assert issubclass(lookup, Exception)


def registered() -> None:
    """The registry looks implementations up by name."""
    assert_type(tersely.registry().pruners.names(), tuple[str, ...])
    assert_type(tersely.registry().pruners.info("l1_norm"), tersely.PrunerInfo)
    assert_type(tersely.registry().losses.info("mse"), tersely.LossInfo)


def mistakes(session: tersely.Session) -> None:
    """What a type checker has to refuse."""
    tersely.prune(MODEL, "config.yaml")  # type: ignore[arg-type]  # a list of mappings, no path
    tersely.prune(MODEL, [], "l1_norm")  # type: ignore[call-arg]  # options are given by keyword
    tersely.distill(MODEL, [], MODEL)  # type: ignore[call-arg]  # a teacher is given by keyword
    session.loss({})  # type: ignore[call-arg]  # and so is a batch
    tersely.attach("model.pt", RECIPE)  # type: ignore[arg-type]  # a module, no path
    session.total_loss(1.0)  # type: ignore[arg-type]  # a tensor, to go back through
    session.calibrate()  # type: ignore[call-arg]  # no batches
    session.compres()  # type: ignore[attr-defined]  # no such call
