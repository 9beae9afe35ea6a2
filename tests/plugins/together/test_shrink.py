"""Session.shrink: the model loses what its masks leave without effect, and training goes on."""

import copy

import pytest
import torch
from messages.shrinking import EXAMPLE_FAILS
from torch import nn
from torch.nn import functional

import tersely

INPUTS = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(0, 4, (8,), generator=torch.Generator().manual_seed(1))


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def following(module, source):
    align = {"module_name": source, "target_name": "weight", "dims": [0]}
    return {
        "op_names": [module],
        "target_names": ["weight", "bias"],
        "target_settings": {"weight": {"align": align}, "bias": {"align": align}},
    }


CONFIG = [{"op_names": ["0", "3"], "sparse_ratio": 0.5}, following("1", "0")]
PRUNING = {"algorithm": "l1_norm", "config_list": CONFIG}
ROWS_AND_BIAS = {
    "target_names": ["weight", "bias"],
    "target_settings": {"bias": {"align": {"target_name": "weight", "dims": [0]}}},
}


def train(model, session, optimizer, steps, *, batches=INPUTS):
    losses = []
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = session.total_loss(functional.cross_entropy(model(batches), LABELS))
        loss.backward()
        optimizer.step()
        session.step()
        losses.append(float(loss.detach()))
    return losses


def pruned():
    model = network()
    return model, tersely.prune(model, CONFIG, algorithm="l1_norm")


def test_modules_and_parameters_stay_the_same_objects():
    model, session = pruned()
    modules, parameters = list(model), list(model.parameters())
    names = list(model.state_dict())
    session.shrink(INPUTS)
    assert all(a is b for a, b in zip(modules, model, strict=True))
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert list(model.state_dict()) == names
    assert model[3].weight.shape == (4, 4, 3, 3)
    assert model[1].num_features == model[0].out_channels == 4


def test_the_small_model_computes_what_the_masked_one_does():
    model, session = pruned()
    model.eval()
    expected = model(INPUTS)
    session.shrink(INPUTS)
    torch.testing.assert_close(model(INPUTS), expected)


def test_the_report_counts_parameters_and_macs_and_is_json():
    _, session = pruned()
    shrunk = session.shrink(INPUTS)
    conv, small = 8 * 8 * 8 * 9, 8 * 8 * 8 * 9  # batch, positions, kernel
    assert shrunk.parameters == (
        8 * 27 + 8 + 16 + 8 * 72 + 8 + 36,
        4 * 27 + 4 + 8 + 4 * 36 + 4 + 20,
    )
    assert shrunk.macs == (conv * (24 + 64) + 8 * 32, small * (12 + 16) + 8 * 16)
    rows = [row for row in shrunk.to_dict()["rows"] if row["parameter"] == "weight"]
    assert rows[0] == {
        "module": "0",
        "parameter": "weight",
        "dimension": 0,
        "before": 8,
        "after": 4,
    }
    assert "0.weight: dimension 0, 8 -> 4" in str(shrunk)


def test_masks_are_cut_and_frozen():
    _, session = pruned()
    session.shrink(INPUTS)
    assert {name: mask["weight"].shape for name, mask in session.masks().items()} == {
        "0": (4, 3, 3, 3),
        "1": (4,),
        "3": (4, 4, 3, 3),
    }
    assert session.sparsity()["3"]["weight"] == 0
    session.compress()
    assert session.sparsity()["3"]["weight"] == 0


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.SGD])
def test_training_goes_on_as_it_would_have_on_the_masked_model(make):
    options = {"lr": 1e-2} | ({"momentum": 0.9} if make is torch.optim.SGD else {})
    losses = []
    for is_shrunk in (False, True):
        model, session = pruned()
        optimizer = make(model.parameters(), **options)
        train(model, session, optimizer, 3)
        if is_shrunk:
            session.shrink(INPUTS, optimizer=optimizer)
        losses.append(train(model, session, optimizer, 3))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-6)


def test_a_loss_of_before_may_be_alive():
    model, session = pruned()
    alive = functional.cross_entropy(model(INPUTS), LABELS)
    alive.backward()
    session.shrink(INPUTS)
    functional.cross_entropy(model(INPUTS), LABELS).backward()
    raw = dict(model.named_parameters())["3.weight"]
    assert raw.grad.shape == (4, 4, 3, 3)


RECIPE = {
    "stages": [
        {
            "until": 3,
            "pruning": {**PRUNING, "schedule": {"name": "agp", "every": 1, "times": 2}},
        },
        {
            "quantization": {
                "algorithm": "qat",
                "config_list": [
                    {
                        "op_types": ["Conv2d", "Linear"],
                        "target_names": ["_input_", "weight"],
                        "quant_dtype": "int8",
                        "granularity": "default",
                    }
                ],
            },
            "distillation": {"config_list": [{"op_names": ["7"], "lambda": 0.5}]},
        },
    ]
}


def taught(model, session, optimizer, steps):
    losses = []
    for _ in range(steps):
        session.teacher_forward(INPUTS)
        losses += train(model, session, optimizer, 1)
    return losses


def test_a_killed_run_that_pruned_shrank_and_quantizes_is_resumed_bit_for_bit(tmp_path):
    teacher = network().eval()
    model = network()
    session = tersely.attach(model, RECIPE, teacher=teacher)
    session.compress()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    taught(model, session, optimizer, 4)
    session.shrink(INPUTS, optimizer=optimizer)
    raw = dict(model.named_parameters())
    assert raw["3.weight"].shape == (4, 4, 3, 3)
    taught(model, session, optimizer, 1)
    session.save(tmp_path / "session")
    torch.save((model.state_dict(), optimizer.state_dict()), tmp_path / "rest.pt")
    expected = taught(model, session, optimizer, 3)

    again = network()
    resumed = tersely.load_session(again, tmp_path / "session", teacher=teacher)
    weights, moments = torch.load(tmp_path / "rest.pt")
    again.load_state_dict(weights)
    optimizer = torch.optim.Adam(again.parameters(), lr=1e-2)
    optimizer.load_state_dict(moments)
    assert taught(again, resumed, optimizer, 3) == expected
    assert resumed.qparams()["3"]["weight"].scale.ndim == 0


def test_what_the_teacher_is_compared_with_keeps_its_shape():
    model = network()
    recipe = {
        "pruning": {"algorithm": "l1_norm", "config_list": CONFIG},
        "distillation": {"config_list": [{"op_names": ["4"]}]},
    }
    session = tersely.attach(model, recipe, teacher=network())
    session.compress()
    shrunk = session.shrink(INPUTS)
    assert model[3].out_channels == 8
    assert "4._output_ is compared with the teacher" in {stay.reason for stay in shrunk.stays}


def test_scales_for_each_channel_are_cut():
    model = network()
    recipe = {
        "pruning": PRUNING,
        "quantization": {
            "algorithm": "ptq",
            "config_list": [
                {
                    "op_names": ["3"],
                    "target_names": ["weight"],
                    "quant_dtype": "int8",
                    "granularity": "out_channel",
                }
            ],
        },
    }
    session = tersely.attach(model, recipe)
    session.calibrate([INPUTS])
    session.compress()
    before = session.qparams()["3"]["weight"].scale.flatten()
    kept = session.masks()["3"]["weight"].flatten(1).any(1)
    session.shrink(INPUTS)
    torch.testing.assert_close(session.qparams()["3"]["weight"].scale.flatten(), before[kept])


def _state(model, session, optimizer):
    tensors, _ = session.state()
    moments = {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    return {**model.state_dict(), **tensors, **moments}


def test_everything_is_as_it_was_when_something_cannot_be_cut():
    model, session = pruned()
    optimizer = torch.optim.Adam(model.parameters())
    train(model, session, optimizer, 1)
    optimizer.state[dict(model.named_parameters())["0.weight"]]["odd"] = torch.zeros(5)
    before = copy.deepcopy(_state(model, session, optimizer))
    with pytest.raises(tersely.SessionError, match="odd' of 0"):
        session.shrink(INPUTS, optimizer=optimizer)
    torch.testing.assert_close(_state(model, session, optimizer), before, rtol=0, atol=0)
    assert (model[0].out_channels, model[1].num_features) == (8, 8)
    train(model, session, optimizer, 1)


def test_masks_of_single_elements_say_which_granularity_to_ask_for():
    session = tersely.prune(
        network(), [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}], algorithm="level"
    )
    with pytest.raises(tersely.SessionError, match="granularity: out_channel"):
        session.shrink(INPUTS)


def test_without_a_mask_nothing_can_be_shrunk():
    session = tersely.quantize(
        network(),
        [{"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "int8"}],
    )
    with pytest.raises(tersely.SessionError, match="found no mask of a parameter"):
        session.shrink(INPUTS)


def test_an_example_that_does_not_run_is_refused():
    _, session = pruned()
    with pytest.raises(tersely.SessionError, match=EXAMPLE_FAILS):
        session.shrink(torch.randn(2, 5))


def test_a_schedule_that_is_on_its_way_is_waited_for():
    model = network()
    pruning = {**PRUNING, "schedule": {"name": "agp", "every": 1, "times": 4}}
    session = tersely.attach(model, {"pruning": pruning})
    session.compress()
    train(model, session, torch.optim.SGD(model.parameters(), lr=0.1), 2)
    with pytest.raises(tersely.SessionError, match="still growing"):
        session.shrink(INPUTS)


def test_a_wrapped_or_compiled_model_is_refused_by_name():
    model, session = pruned()
    model[3].compile(backend="eager")
    with pytest.raises(tersely.SessionError, match="'3' is compiled"):
        session.shrink(INPUTS)
    session.detach()
    wrapped = nn.DataParallel(network())
    config = [{"op_names": ["module.0"], "sparse_ratio": 0.5}]
    session = tersely.prune(wrapped, config, algorithm="l1_norm")
    with pytest.raises(tersely.SessionError, match="wrapped in DataParallel"):
        session.shrink(INPUTS)


def test_a_saved_session_cuts_a_fresh_model_and_goes_on(tmp_path):
    model, session = pruned()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    session.shrink(INPUTS, optimizer=optimizer)
    session.save(tmp_path / "half")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    expected = train(model, session, optimizer, 2)

    again = network()
    resumed = tersely.load_session(again, tmp_path / "half")
    again.load_state_dict(torch.load(tmp_path / "weights.pt"))
    assert again[3].weight.shape == (4, 4, 3, 3)
    assert again[3].in_channels == 4
    optimizer = torch.optim.SGD(again.parameters(), lr=1e-2)
    assert train(again, resumed, optimizer, 2) == expected


def test_a_fresh_model_gets_shapes_and_weights_of_a_shrunk_one(tmp_path):
    _, session = pruned()
    session.shrink(INPUTS)
    session.save(tmp_path / "small")
    again = tersely.load_shrunk(network(), tmp_path / "small")
    torch.testing.assert_close(again.eval()(INPUTS), session.finalize().eval()(INPUTS))


def test_a_fresh_model_gets_what_masks_leave_of_weights_that_stay(tmp_path):
    model = network()
    config = [*CONFIG, {"op_names": ["7"], "granularity": "default", "sparse_ratio": 0.5}]
    session = tersely.prune(model, config, algorithm="l1_norm")
    session.shrink(INPUTS)
    session.save(tmp_path / "small")
    again = tersely.load_shrunk(network(), tmp_path / "small")
    assert int((again[7].weight == 0).sum()) == 8
    torch.testing.assert_close(again.eval()(INPUTS), model.eval()(INPUTS), rtol=0, atol=0)


def test_a_model_of_another_structure_is_refused_and_stays_as_it_was(tmp_path):
    _, session = pruned()
    session.shrink(INPUTS)
    session.save(tmp_path / "small")
    other = nn.Sequential(nn.Conv2d(3, 9, 3))
    with pytest.raises(tersely.SessionFileError, match="in which 0"):
        tersely.load_shrunk(other, tmp_path / "small")
    assert other[0].weight.shape == (9, 3, 3, 3)


def test_a_session_that_was_not_shrunk_has_no_small_model(tmp_path):
    _, session = pruned()
    session.save(tmp_path / "whole")
    with pytest.raises(tersely.SessionFileError, match="was not shrunk"):
        tersely.load_shrunk(network(), tmp_path / "whole")


def test_learned_scales_are_moved_on_by_the_users_optimizer():
    model = network()
    recipe = {
        "pruning": PRUNING,
        "quantization": {
            "algorithm": "lsq",
            "config_list": [{"op_names": ["3"], "target_names": ["weight"], "quant_dtype": "int8"}],
        },
    }
    session = tersely.attach(model, recipe)
    session.calibrate([INPUTS])
    session.compress()
    learned = list(session.parameters())
    optimizer = torch.optim.Adam([*model.parameters(), *learned], lr=1e-4)
    train(model, session, optimizer, 1)
    session.shrink(INPUTS, optimizer=optimizer)
    before = session.qparams()["3"]["weight"].scale.clone()
    train(model, session, optimizer, 1)
    assert not torch.equal(session.qparams()["3"]["weight"].scale, before)


@pytest.mark.parametrize(
    ("target", "more"),
    [("weight", {}), ("_input_", {}), ("_input_", {"granularity": "per_token"})],
    ids=["weight", "input", "input by token"],
)
def test_a_constant_stays_where_quantization_rounds_it_or_what_reads_it(target, more):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 3)).eval()
    inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    entry = {"op_names": ["2"], "target_names": [target], "quant_dtype": "int4", **more}
    session = tersely.attach(
        model,
        {
            # sigmoid(0) is a constant that is not zero.
            "pruning": {
                "algorithm": "l1_norm",
                "config_list": [{"op_names": ["0"], "sparse_ratio": 0.5, **ROWS_AND_BIAS}],
            },
            "quantization": {"algorithm": "ptq", "config_list": [entry]},
        },
    )
    session.calibrate([inputs])
    session.compress()
    expected = model(inputs)

    shrunk = session.shrink(inputs)

    assert model[0].out_features == 8
    assert "quantization rounds" in str(shrunk)
    assert torch.equal(model(inputs), expected)
    assert session.shrink(inputs, approximate=True).error > 0
    assert model[0].out_features == 4
