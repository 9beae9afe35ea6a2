"""What the tests of shrinking share: masks of whole channels, and models with lived-in statistics."""

import ast
from collections.abc import Iterable, Iterator
from importlib import util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from tersely.shrinking.shrink import shrink_module


def keep(count, kept):
    """A bool vector that keeps some positions."""
    found = torch.zeros(count, dtype=torch.bool)
    found[list(kept)] = True
    return found


def half(count, *, seed=0):
    """A bool vector that keeps a random half."""
    generator = torch.Generator().manual_seed(seed)
    return keep(count, torch.randperm(count, generator=generator)[: count - count // 2].tolist())


def rows(model, names: Iterable[str], kept):
    """Masks of the output channels of layers and norms, their biases included."""
    found = {}
    for name in names:
        module = model.get_submodule(name)
        dim = 1 if isinstance(module, nn.ConvTranspose2d) else 0
        weight = module.weight
        shape = [-1 if d == dim else 1 for d in range(weight.ndim)]
        found[f"{name}.weight"] = kept.view(shape).expand(weight.shape)
        if getattr(module, "bias", None) is not None:
            found[f"{name}.bias"] = kept
    return found


def lived_in(model):
    """Give batch norms statistics and affine parameters that are not those of a new module."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, spread, least in (
                (module.running_mean, 0.6, -0.3),
                (module.running_var, 1.0, 0.5),
                (module.weight.data, 1.0, 0.5),
                (module.bias.data, 0.6, -0.3),
            ):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * spread + least)
    return model.eval()


def shrink(model, inputs, kept, *, round_to=1, fixed=None):
    """Shrink a model, having checked against an independent masked copy in float64."""
    import copy

    args, kwargs = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
    masked = copy.deepcopy(model)
    for name, mask in kept.items():
        masked.get_parameter(name).data.mul_(mask)
    found = shrink_module(model, args, kwargs, kept, round_to=round_to, fixed=fixed)
    small = copy.deepcopy(model)
    for name in kept:
        cut = found.cuts.get(name)
        mask = kept[name] if cut is None else cut(kept[name])
        small.get_parameter(name).data.mul_(mask)
    double = [x.double() if x.is_floating_point() else x for x in args]
    named = {k: x.double() if x.is_floating_point() else x for k, x in kwargs.items()}
    with torch.no_grad():
        expected, actual = masked.double()(*double, **named), small.double()(*double, **named)
    # A bias that takes constants over holds them in float32.
    tolerance = 1e-6 if found.absorbed else 1e-10
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
    return found


@pytest.fixture
def help():
    return SimpleNamespace(keep=keep, half=half, rows=rows, lived_in=lived_in, shrink=shrink)


def _beside(name) -> ModuleType:
    path = Path(__file__).parent / f"{name}.py"
    return _module(path)


def _module(path) -> ModuleType:
    place = util.spec_from_file_location(path.stem, path)
    module = util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def networks():
    """The module ``networks.py``: whole networks in small."""
    return _beside("networks")


@pytest.fixture(scope="session")
def random_networks():
    """The module ``random_networks.py``: random networks and random masks."""
    return _beside("random_networks")


@pytest.fixture(scope="session")
def masks():
    """The module ``masks.py``: masks of half of all groups of channels."""
    return _beside("masks")


GALLERY = Path(__file__).with_name("gallery")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes ``network`` once for each network of the gallery.

    All tests of one network run in one process of pytest-xdist, which finds its masks once.
    """
    if "network" in metafunc.fixturenames:
        grouped = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in _networks()]
        metafunc.parametrize("network", grouped, indirect=True)


def _networks() -> Iterator[str]:
    for path in sorted(GALLERY.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "NETWORKS":
                yield from (f"{path.stem}.{key.id}" for key in node.value.keys)


@pytest.fixture(scope="session")
def gallery() -> dict[str, ModuleType]:
    """The modules of the directory ``gallery``, by name."""
    return {path.stem: _module(path) for path in GALLERY.glob("*.py")}


@pytest.fixture(scope="session")
def found_masks() -> dict[str, dict[str, torch.Tensor]]:
    """Masks that a test has made of a network of the gallery, by its name."""
    return {}


@pytest.fixture
def network(request, gallery, masks, found_masks) -> SimpleNamespace:
    """A network of the gallery: how to build it with its inputs, and masks of half of it."""
    file, _, cls = request.param.partition(".")
    made = getattr(gallery[file], cls)
    spec = gallery[file].NETWORKS[made]
    ends, heads = (spec["ends"], spec["heads"]) if isinstance(spec, dict) else (spec, None)

    def build():
        torch.manual_seed(0)
        model = lived_in(made())
        image = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        return model, model.example() if hasattr(model, "example") else (image,)

    def halves_of(model, inputs):
        return masks.half_of_all_groups(model, inputs, ends, heads=heads)

    def halves():
        if request.param not in found_masks:
            found_masks[request.param] = halves_of(*build())
        return found_masks[request.param]

    return SimpleNamespace(name=cls, build=build, halves=halves, halves_of=halves_of)
