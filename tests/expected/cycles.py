"""Random models and recipes, taken from attach to finalize with everything checked on the way.

Each seed is one cycle: nothing else decides what is made.
"""

from __future__ import annotations

import copy
import math
import random
import tempfile
from fractions import Fraction
from pathlib import Path

import torch
from torch import nn

import tersely

SIZES = [1, 2, 3, 4, 6, 7, 8]
RATIOS = [0, 0.1, 0.25, 0.29, "1/3", 0.5, 0.7, 0.999, 1]
ELEMENTWISE = ["level", "random", "relative_importance"]
STRUCTURED = ["l1_norm", "l2_norm", "fpgm"]
OBSERVING = ["wanda", "sparsegpt", "apoz", "mean_activation"]
TRAINED = ["movement", "slim", "taylor"]
QUANTIZERS = [
    *("rtn", "ptq", "qat", "lsq", "lsq_plus", "dorefa", "bnn", "gptq", "awq"),
    *("smoothquant", "adaround", "power_of_two"),
]
WEIGHTED = ["Linear", "Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d"]


class Recurrent(nn.Module):
    def __init__(self, kind, inputs, hidden, outputs):
        super().__init__()
        self.cell = kind(inputs, hidden, batch_first=True)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


class Attending(nn.Module):
    def __init__(self, heads, width, outputs):
        super().__init__()
        self.embed = nn.Embedding(7, heads * width)
        self.block = nn.TransformerEncoderLayer(
            heads * width, heads, 2 * width, dropout=0.0, batch_first=True
        )
        self.head = nn.Linear(heads * width, outputs)

    def forward(self, x):
        return self.head(self.block(self.embed(x)).mean(1))


class Shared(nn.Module):
    """One layer called twice, and a head tied to it."""

    def __init__(self, width):
        super().__init__()
        self.first = nn.Linear(width, width)
        self.tied = nn.Linear(width, width)
        self.tied.weight = self.first.weight

    def forward(self, x):
        return self.tied(torch.relu(self.first(torch.relu(self.first(x)))))


def convolutional(a, b, c, heads, bias):
    return nn.Sequential(
        nn.Conv2d(a, b, 3, bias=bias),
        nn.BatchNorm2d(b),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * b, c),
    )


def grouped(a, b, c, heads, bias):
    first = nn.Conv2d(a, a * b, 3, groups=a, bias=bias)
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(a * b, c, 1))


def transposed(a, b, c, heads, bias):
    first = nn.ConvTranspose2d(a, a * b, 2, groups=a, bias=bias)
    return nn.Sequential(first, nn.BatchNorm2d(a * b), nn.ConvTranspose2d(a * b, c, 3, stride=2))


def dense(a, b, c, heads, bias):
    return nn.Sequential(nn.Linear(a, b, bias=bias), nn.BatchNorm1d(b), nn.GELU(), nn.Linear(b, c))


def line(a, b, c, heads, bias):
    return nn.Sequential(nn.Conv1d(a, b, 3, bias=bias), nn.SiLU(), nn.ConvTranspose1d(b, c, 2))


MAKERS = {
    "mlp": dense,
    "cnn": convolutional,
    "grouped": grouped,
    "transposed": transposed,
    "line": line,
    "lstm": lambda a, b, c, heads, bias: Recurrent(nn.LSTM, a, b, c),
    "gru": lambda a, b, c, heads, bias: Recurrent(nn.GRU, a, b, c),
    "text": lambda a, b, c, heads, bias: Attending(heads, b, c),
    "tied": lambda a, b, c, heads, bias: Shared(a),
}


def network(rng):
    """Return what makes a model, always the same one, and a batch of its inputs."""
    seed = rng.randrange(1 << 30)
    a, b, c = (rng.choice(SIZES) for _ in range(3))
    heads = rng.choice([1, 2, 3])
    rows = rng.choice([2, 3, 5, 9])
    bias = rng.random() < 0.7
    kind = rng.choice(
        ["mlp", "cnn", "grouped", "transposed", "line", "lstm", "gru", "text", "tied"]
    )
    x = torch.randn(rows, a, 6, 5)

    def make():
        torch.manual_seed(seed)
        return MAKERS[kind](a, b, c, heads, bias)

    if kind in ("mlp", "tied"):
        x = torch.randn(rows, a)
    elif kind == "line":
        x = torch.randn(rows, a, 7)
    elif kind in ("lstm", "gru"):
        x = torch.randn(rows, 4, a)
    elif kind == "text":
        x = torch.randint(0, 7, (rows, 5))
    return kind, make, x


def ratio(value):
    return value if not isinstance(value, str) else float(Fraction(value))


def pruning(rng, kind):
    algorithm = rng.choice([*ELEMENTWISE, *STRUCTURED, *OBSERVING, *TRAINED])
    types = {"lstm": ["LSTM", "Linear"], "gru": ["GRU", "Linear"]}.get(kind, WEIGHTED)
    entry = {"op_types": ["BatchNorm1d", "BatchNorm2d"] if algorithm == "slim" else types}
    way = rng.random()
    if way < 0.7:
        entry["sparse_ratio"] = ratio(rng.choice(RATIOS))
    elif way < 0.85:
        entry["sparse_threshold"] = rng.choice([0, 0.05, 0.5])
    else:
        entry |= {"sparse_ratio": ratio(rng.choice(RATIOS)), "global_group_id": "all"}
    if rng.random() < 0.15:
        entry["max_sparse_ratio"] = 0.8
    if rng.random() < 0.1:
        entry["min_sparse_ratio"] = 0.2
    if rng.random() < 0.1:
        entry["apply_method"] = rng.choice(["mul", "add"])
    if rng.random() < 0.1 and kind in ("mlp", "cnn", "line"):
        entry |= {"target_names": ["weight", "_output_"]}
        align = {"target_name": "weight", "dims": [0]}
        entry["target_settings"] = {"_output_": {"align": align}}
    if algorithm in ELEMENTWISE and rng.random() < 0.3:
        entry["granularity"] = rng.choice(["out_channel", "in_channel", [1, -1], "2:4", [2, 2]])
    stage = {"algorithm": algorithm, "config_list": [entry]}
    if algorithm == "movement":
        stage["options"] = {"cooldown_begin_step": rng.choice([1, 2, 3])}
    elif algorithm in TRAINED or rng.random() < 0.3:
        name = rng.choice(["agp", "linear"])
        stage["schedule"] = {"name": name, "every": rng.choice([1, 2]), "times": rng.choice([1, 3])}
    if algorithm not in TRAINED and rng.random() < 0.2:
        stage["hold"] = "step"
    return stage


def quantization(rng, kind):
    algorithm = rng.choice(QUANTIZERS)
    types = {"lstm": ["LSTM", "Linear"], "gru": ["GRU", "Linear"]}.get(kind, WEIGHTED)
    entry = {"op_types": types}
    if algorithm not in ("bnn", "dorefa"):
        entry["quant_dtype"] = rng.choice(["int2", "int4", "int8", "uint3", "uint8", "int16"])
        entry["quant_scheme"] = rng.choice(["symmetric", "affine"])
        if rng.random() < 0.1:
            entry["quant_dtype"] = rng.choice(["float8_e4m3fn", "float8_e5m2", "int3"])
        if rng.random() < 0.5:
            entry["granularity"] = rng.choice(["per_channel", "per_channel", {"group": 2}, [1, -1]])
        if rng.random() < 0.4 and algorithm not in ("gptq", "awq", "adaround", "rtn"):
            names = [["_input_", "weight"], ["_output_", "weight"], ["_input_", "_output_"]]
            entry["target_names"] = rng.choice(names)
            if "_input_" in entry["target_names"] and rng.random() < 0.2:
                entry["target_settings"] = {"_input_": {"granularity": "per_token"}}
        else:
            entry["target_names"] = ["weight"]
        if kind in ("lstm", "gru"):
            entry |= {"op_types": ["Linear"]}
    stage = {"algorithm": algorithm, "config_list": [entry]}
    if kind == "cnn" and rng.random() < 0.4 and algorithm in ("ptq", "qat", "rtn", "lsq"):
        entry |= {"op_names": ["0"], "fuse_names": [["0", "1", "2"]]}
    if algorithm == "adaround":
        stage["options"] = {"iterations": 3}
    return stage


class CycleError(AssertionError):
    """What a cycle shows that may not be."""


def need(condition, text):
    if not condition:
        raise CycleError(text)


def check_masks(session, stage, model):
    keys = stage["config_list"][0]
    for module, targets in session.masks().items():
        for target, mask in targets.items():
            name = f"{module}.{target}"
            need(mask.dtype == torch.bool, f"{name}: mask is {mask.dtype}")
            if target.startswith("_"):
                continue
            tensor = dict(model.get_submodule(module).named_parameters(recurse=False))[target]
            need(mask.shape == tensor.shape, f"{name}: mask {mask.shape}, tensor {tensor.shape}")
            read = getattr(model.get_submodule(module), target).detach()
            need(bool((read[~mask] == 0).all()), f"{name}: masked elements are not zero")
            need(torch.equal(read[mask], tensor.detach()[mask]), f"{name}: kept elements changed")
            plain = {"sparse_ratio"} == keys.keys() - {"op_types"}
            due = "schedule" not in stage and stage["algorithm"] != "movement"
            if plain and due and target == "weight" and stage["algorithm"] in ELEMENTWISE:
                wanted = math.floor(Fraction(str(keys["sparse_ratio"])) * mask.numel())
                found = int((~mask).sum())
                need(found == wanted, f"{name}: {found} masked, not {wanted} of {mask.numel()}")


def outputs(model, x):
    model.eval()
    with torch.no_grad():
        return model(x)


def train(model, session, optimizer, x, steps):
    for number in range(steps):
        model.train()
        torch.manual_seed(number)
        optimizer.zero_grad()
        loss = session.total_loss(model(x).square().mean())
        loss.backward()
        optimizer.step()
        session.step()


def cycle(seed):
    """Run one cycle; return what it came to: "whole", or the text of a refusal."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    kind, make, x = network(rng)
    recipe = {}
    if rng.random() < 0.7:
        recipe["pruning"] = pruning(rng, kind)
    if rng.random() < 0.6 or not recipe:
        recipe["quantization"] = quantization(rng, kind)
    taught = rng.random() < 0.15
    if taught:
        recipe["distillation"] = {"config_list": [{"op_types": ["Linear"], "lambda": 0.5}]}
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    dense = outputs(model, x)
    teacher = make() if taught and kind not in ("tied",) else None
    if teacher is None:
        recipe.pop("distillation", None)
    try:
        return _cycle(rng, recipe, make, model, x, before, dense, teacher), kind, recipe
    except tersely.TerselyError as error:
        if isinstance(error, tersely.SessionFileError):
            raise  # of a session that was just saved
        return f"{type(error).__name__}: {error}", kind, recipe
    except Exception as error:
        error.add_note(f"seed {seed}, {kind}, {recipe}")
        raise


def _cycle(rng, recipe, make, model, x, before, dense, teacher):
    session = tersely.attach(model, recipe, teacher=teacher)
    # What is quantized by each call's own range is so from the first call on, and a norm
    # is folded from the beginning, which sums in another order.
    is_dynamic = "per_token" in str(recipe) or "fuse_names" in str(recipe)
    need(
        is_dynamic or torch.equal(outputs(model, x), dense),
        "an attached model computes something else",
    )
    try:
        session.calibrate([x, x.flip(0)])
        session.compress()
    except tersely.TerselyError:
        need(
            is_dynamic or torch.equal(outputs(model, x), dense),
            "a refused compress leaves something",
        )
        session.detach()
        _need_dense(model, before, x, dense)
        raise
    is_added = recipe.get("pruning", {"config_list": [{}]})["config_list"][0].get("apply_method")
    if "pruning" in recipe and "quantization" not in recipe and is_added != "add":
        check_masks(session, recipe["pruning"], model)
    need(bool(outputs(model, x).isfinite().all()), "outputs are not finite")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    has_norm = len(x) > 1
    steps = rng.choice([0, 1, 3]) if has_norm else 0
    if steps:
        hooks = []
        if teacher is not None:
            hooks.append(
                model.register_forward_pre_hook(lambda module, args: _taught(session, module, args))
            )
        train(model, session, optimizer, x, steps)
        for hook in hooks:
            hook.remove()
    _need_keys(model, before)
    if _check_saved(session, model, make, x, teacher):
        steps += 1
    if rng.random() < 0.2:
        session.detach()
        _need_keys(model, before, exact=True)
        if not steps:
            _need_dense(model, before, x, dense)
        return "whole"
    simulated = outputs(model, x)
    masks, late = session.masks(), copy.deepcopy(session.sparsity())
    finished = session.finalize()
    found = outputs(finished, x)
    scale = simulated.abs().max().clamp_min(1e-6)
    gap = float((found - simulated).abs().max() / scale)
    need(gap < 2e-3, f"a finished model is off by {gap:.2g}")
    _need_keys(finished, before)
    need(session.sparsity() == late, "finalize changes the sparsity")
    if "quantization" not in recipe and is_added != "add":
        for module, targets in masks.items():
            for target, mask in targets.items():
                if not target.startswith("_"):
                    value = getattr(finished.get_submodule(module), target).detach()
                    need(bool((value[~mask] == 0).all()), f"{module}.{target} is not sparse")
    return "whole"


def _taught(session, module, args):
    if module.training:
        session.teacher_forward(*args)


def _need_keys(model, before, *, exact=False):
    keys = [key for key in model.state_dict() if exact or "_tersely_" not in key]
    need(keys == list(before), f"state dict has {keys}, not {list(before)}")


def _need_dense(model, before, x, dense):
    for name, value in model.state_dict().items():
        if "running_" not in name and "num_batches" not in name:
            need(torch.equal(value, before[name]), f"{name} is not as before")


def _check_saved(session, model, make, x, teacher):
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "session")
        session.save(place)
        fresh = make()
        dense = {key: one for key, one in model.state_dict().items() if "_tersely_" not in key}
        fresh.load_state_dict(dense)
        twin = copy.deepcopy(teacher)
        again = tersely.load_session(fresh, place, teacher=twin)
        need(torch.equal(outputs(fresh, x), outputs(model, x)), "a loaded session differs")
        need(again.steps == session.steps, "a loaded session has another clock")
        need(_same(again.masks(), session.masks()), "a loaded session has other masks")
        other = make()
        other_session = tersely.attach(other, session.plan, teacher=twin)
        other.load_state_dict(model.state_dict())
        gap = (outputs(other, x) - outputs(model, x)).abs().max()
        # Weights that are masked in place are read otherwise, and summed in another order.
        need(float(gap) < 1e-5, f"a loaded state dict is off by {float(gap):.2g}")
        other_session.detach()
        is_resumed = len(x) > 1 and teacher is None
        if is_resumed:
            _resume(session, model, again, fresh, x)
        again.detach()
        return is_resumed


def _resume(session, model, again, fresh, x):
    try:
        train(fresh, again, torch.optim.SGD(fresh.parameters(), lr=0.01), x, 1)
    except tersely.SessionError:
        return  # block by block on batches, which are not saved
    train(model, session, torch.optim.SGD(model.parameters(), lr=0.01), x, 1)
    state, resumed = model.state_dict(), fresh.state_dict()
    need(list(state) == list(resumed), f"entries {list(resumed)}, not {list(state)}")
    for name, value in state.items():
        need(torch.equal(value, resumed[name]), f"{name} differs after a resumed step")


def _same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(mask, other[module][target])
        for module, targets in one.items()
        for target, mask in targets.items()
    )
