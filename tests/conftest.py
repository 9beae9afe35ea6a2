"""What every suite shares: the reference implementation's numbers, and pairs of processes."""

import functools
import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(os.environ.get("TERSELY_GOLDEN", Path(__file__).parent / "data" / "golden"))


class Golden:
    """The golden files, each read once; ``tests/data/golden/README.md`` says what they hold."""

    @functools.cache  # noqa: B019  # one instance lives as long as the test run
    def load(self, name: str) -> dict[str, Any]:
        path = FOLDER / name
        if path.suffix == ".json":
            return json.loads(path.read_text(encoding="utf-8"))
        # Lazy: part of the suite runs where torch is not installed.
        import torch

        return torch.load(path, weights_only=True)

    def cases(self, name: str) -> list[dict[str, Any]]:
        return self.load(name)["cases"]

    @functools.cached_property
    def models(self) -> ModuleType:
        return _module(FOLDER / "models.py")

    def model(self, case: dict[str, Any]) -> Any:
        """The case's model with its stored weights."""
        model = self.models.build(case["model"], case.get("seed", 0), **case.get("model_args", {}))
        if "state_dict" in case:
            model.load_state_dict(case["state_dict"])
        return model.eval()


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tests_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GOLDEN = Golden()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "xdist_group(name): pytest-xdist's, which may be missing")
    config.addinivalue_line(
        "markers", "worker(file): run once for each scenario of that worker, as `outcome`"
    )
    config.addinivalue_line(
        "markers", "golden(file, select=None): run once for each case of the file, as `case`"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("golden")
    if marker is not None:
        select = marker.kwargs.get("select", lambda case: True)
        cases = [case for case in GOLDEN.cases(*marker.args) if select(case)]
        names = [case.get("name") for case in cases]
        metafunc.parametrize("case", cases, ids=names if all(names) else None)
    marker = metafunc.definition.get_closest_marker("worker")
    if marker is not None:
        worker = metafunc.definition.path.with_name(*marker.args)
        scenarios = _scenarios_of(worker)
        asked = [(worker, scenario) for scenario in scenarios]
        metafunc.parametrize("outcome", asked, ids=scenarios, indirect=True)


def _scenarios_of(worker: Path) -> list[str]:
    lines = worker.read_text(encoding="utf-8").splitlines()
    return [
        after.removeprefix("def ").partition("(")[0]
        for line, after in itertools.pairwise(lines)
        if line == "@scenario"
    ]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share a module's fixture in one process of pytest-xdist (loadgroup)."""
    for item in items:
        definitions = getattr(item, "_fixtureinfo").name2fixturedefs.values()  # noqa: B009  # private
        if any(one[-1].scope == "module" for one in definitions):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


@pytest.fixture(scope="session")
def golden() -> Golden:
    return GOLDEN


@pytest.fixture(scope="session")
def resnet() -> ModuleType:
    """The module ``resnet.py``: convolutional networks of the size that people compress."""
    return _module(Path(__file__).parent / "resnet.py")


HOOKS = {
    "ExporterInfo": "tersely_exporters",
    "GranularityInfo": "tersely_granularities",
    "LossInfo": "tersely_distillation_losses",
    "PrunerInfo": "tersely_pruners",
    "QuantizerInfo": "tersely_quantizers",
    "ScheduleInfo": "tersely_schedules",
}


@pytest.fixture(scope="session")
def provide() -> Callable[..., AbstractContextManager[None]]:
    """Provide plugins inside of a block: ``with provide("toys", info, Toy=Toy)``."""
    import tersely

    @contextmanager
    def provide(module: str, *infos: Any, **objects: object) -> Iterator[None]:
        body = {}
        for kind, hook in HOOKS.items():
            if some := [info for info in infos if type(info).__name__ == kind]:
                body[hook] = _returning(some)
        made = sys.modules[module] = ModuleType(module)
        vars(made).update(objects)
        name = tersely.registry().register(type("Face", (), body)(), name=module.replace("_", "-"))
        yield
        tersely.registry().unregister(name)
        del sys.modules[module]

    return provide


def _returning(infos: list[Any]) -> Callable[[object], list[Any]]:
    import tersely

    @tersely.hookimpl
    def hook(self: object) -> list[Any]:
        return infos

    return hook


@pytest.fixture(scope="session")
def fresh() -> Iterator[Any]:
    """Processes of their own that have imported torch: see `fresh.py`."""
    server = _module(Path(__file__).parent / "fresh.py").Fresh()
    yield server
    server.close()


SECONDS = 480
"""How long two processes may take for all of their scenarios."""

Ask = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def start_workers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Ask]:
    """Run a worker of ``two_processes.py``, which is two processes.

    What it returns tells what each process reports of a scenario: ``ok``, or what went wrong.
    """

    @functools.cache
    def start(worker: Path) -> Ask:
        folder = tmp_path_factory.mktemp("gloo")
        log = run_worker(worker, folder)

        def ask(scenario: str) -> list[str]:
            found = []
            for rank in (0, 1):
                path = folder / f"results-{rank}.json"
                results = json.loads(path.read_text()) if path.exists() else {}
                found.append(results.get(scenario, f"not reached\n{log}"))
            return found

        return ask

    return start


@pytest.fixture
def outcome(request: pytest.FixtureRequest, start_workers: Callable[[Path], Ask]) -> list[str]:
    """What each of two processes reports of one scenario, see the marker ``worker``."""
    worker, scenario = request.param
    return start_workers(worker)(scenario)


def run_worker(worker: Path, folder: Path) -> str:
    """Run a worker to its end, or until its time is over, and return what it printed."""
    # The caller's own path stays: the workers test the tree that the caller tests.
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", str(worker), str(folder)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
        )
    try:
        process.wait(SECONDS)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
    return log.read_text()


@functools.cache
def _adds_in_16_bits() -> bool:
    """Tell whether this processor's sums of 8 bit products overflow, where that matters."""
    if "torch" not in sys.modules or None in map(
        importlib.util.find_spec, ("onnxruntime", "tersely_export")
    ):
        return False
    from tersely_export.for_onnx import overflow

    return overflow.adds_in_16_bits()


@pytest.fixture(autouse=True)
def _exact_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let onnxruntime compute on every processor what it computes on those with VNNI."""
    if not _adds_in_16_bits():
        return
    import onnxruntime

    from tersely_export.for_onnx import overflow

    class Exact(onnxruntime.InferenceSession):
        def __init__(self, model: Any, sess_options: Any = None, *args: Any, **kwargs: Any) -> None:
            sess_options = sess_options or onnxruntime.SessionOptions()
            sess_options.add_session_config_entry(overflow.SETTING, "1")
            super().__init__(model, sess_options, *args, **kwargs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Exact)
    monkeypatch.setattr(overflow, "capabilities", dict)
