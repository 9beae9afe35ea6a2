"""Quantizing as the reference implementation did: scales, losses, weights and outputs."""

import itertools

import pytest
import torch

import tersely

ALGORITHMS = {
    "PtqQuantizer": "ptq",
    "QATQuantizer": "qat",
    "LsqQuantizer": "lsq",
    "DoReFaQuantizer": "dorefa",
    "BNNQuantizer": "bnn",
}
SCALED = ("PtqQuantizer", "QATQuantizer")


def plain(config_list):
    """Tuples of ``fuse_names`` as the lists of a document."""
    return [
        {
            key: [list(one) for one in value] if key == "fuse_names" else value
            for key, value in entry.items()
        }
        for entry in config_list
    ]


def recipe(case, **options):
    entry = {"algorithm": ALGORITHMS[case["algo"]], "config_list": plain(case["config_list"])}
    return {"quantization": entry | ({"options": options} if options else {})}


def reference_rates(case, model):
    """Learning rates with which the reference moves what is folded, as a share of the usual one.

    Its optimizer lists the bias of a folded layer twice; without one, nothing reaches the bias of
    the batch norm.
    """
    if not case["name"].startswith("fuse_qat"):
        return {}
    return {model.bn.bias: 0} if model.conv.bias is None else {model.conv.bias: 2}


def need_granularities(case):
    """Skip a case that another family has a part in, where that is not installed."""
    settings = [
        one for entry in case["config_list"] for one in entry.get("target_settings", {}).values()
    ]
    if any(one.get("granularity", "default") != "default" for one in settings):
        pytest.importorskip("tersely_granularity")


def train(case, model, session, loss_fn, *, rates, learned=()):
    groups = [
        {"params": [parameter], "lr": case["lr"] * rates.get(parameter, 1)}
        for parameter in [*model.parameters(), *learned]
    ]
    optimizer = torch.optim.SGD(groups, lr=case["lr"])
    losses = []
    model.train()
    for batch in itertools.islice(itertools.cycle(case["train"]), case["steps"]):
        optimizer.zero_grad()
        loss = session.total_loss(loss_fn(batch, model))
        loss.backward()
        optimizer.step()
        session.step()
        losses.append(loss.item())
    return losses


def check_scales(session, case, **tolerance):
    found = session.qparams()
    for module, targets in case["calibration"].items():
        for target, expected in targets.items():
            name = target.replace("_0", "_") if target not in found[module] else target
            qparams = found[module][name]
            assert (qparams.quant_min, qparams.quant_max) == case["ranges"][module][target]
            torch.testing.assert_close(
                qparams.scale.reshape(expected["scale"].shape), expected["scale"], **tolerance
            )
            zero_point = qparams.zero_point.reshape(expected["scale"].shape).float()
            torch.testing.assert_close(zero_point, expected["zero_point"])


def check_result(session, case, model, **tolerance):
    for name, parameter in model.named_parameters():
        if name in case["final_params"]:
            torch.testing.assert_close(parameter.detach(), case["final_params"][name], **tolerance)
    model.eval()
    if "y" in case:
        torch.testing.assert_close(model(case["x"]), case["y"], **tolerance)


@pytest.mark.golden("quant.pt", select=lambda case: case["algo"] in SCALED)
def test_scales_losses_and_outputs_are_the_reference_s(golden, case):
    need_granularities(case)
    model = golden.model(case)
    rates = reference_rates(case, model)
    session = tersely.attach(model, recipe(case, **case["algo_args"]))
    if case["calib"] is not None:
        session.calibrate(case["calib"])
        session.compress()
    losses = []
    if case["train"] is not None:
        losses = train(case, model, session, golden.models.loss_fn, rates=rates)
    # Without a bias no gradient passes the folded one in the reference, so gamma moves otherwise.
    is_detached = case["name"] == "fuse_qat_3_False"
    assert losses == pytest.approx(case["losses"], rel=1e-3 if is_detached else 1e-4)
    tolerance = {"rtol": 1e-2, "atol": 3e-4} if is_detached else {}
    check_scales(session, case, **tolerance)
    check_result(session, case, model, **tolerance)


@pytest.mark.golden("quant.pt", select=lambda case: case["algo"] == "DoReFaQuantizer")
def test_dorefa_computes_what_the_reference_does(golden, case):
    """Before the noise of its gradients; the reference takes the range of each batch's inputs."""
    model = golden.model(case)
    session = tersely.attach(model, recipe(case))
    session.calibrate(case["train"][:1])
    session.compress()
    losses = train(case | {"steps": 1}, model, session, golden.models.loss_fn, rates={})
    assert losses == pytest.approx(case["losses"][:1], rel=1e-5)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(case["final_params"].get(name, parameter))
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        return  # the reference divides by the largest gradient of a sample, which was zero
    session.calibrate([case["x"]])
    session.compress()
    check_result(session, case, model)


@pytest.mark.golden("quant.pt", select=lambda case: case["algo"] == "BNNQuantizer")
def test_bnn_trains_as_the_reference_does(golden, case):
    model = golden.model(case)
    session = tersely.attach(model, recipe(case))
    session.calibrate(case["train"])
    session.compress()

    losses = train(case, model, session, golden.models.loss_fn, rates={})

    assert losses == pytest.approx(case["losses"], rel=1e-5)
    check_result(session, case, model)


def test_lsq_trains_as_a_loop_written_by_hand():
    """Esser et al., equations 1 to 3, next to SGD over weights and scales."""
    data = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    model = torch.nn.Sequential(torch.nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.linspace(-0.5, 0.4, 8).reshape(2, 4))
    weight = model[0].weight.detach().clone().requires_grad_()
    scales = {name: torch.tensor(0.01, requires_grad=True) for name in ("_input_", "weight")}
    stage = {
        "algorithm": "lsq",
        "options": {"initial_scale": 0.01},
        "config_list": [
            {"op_names": ["0"], "target_names": ["_input_", "weight"], "quant_dtype": "int4"}
        ],
    }
    session = tersely.attach(model, {"quantization": stage})
    session.calibrate(data)
    session.compress()
    mine = torch.optim.SGD([*model.parameters(), *session.parameters()], lr=0.01)
    theirs = torch.optim.SGD([weight, *scales.values()], lr=0.01)

    for batch in data:
        losses = []
        for optimizer in (mine, theirs):
            optimizer.zero_grad()
            if optimizer is mine:
                output = model(batch)
            else:
                output = by_hand(batch, scales["_input_"]) @ by_hand(weight, scales["weight"]).T
            loss = output.square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        session.step()
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)

    torch.testing.assert_close(model[0]._parameters["weight"], weight)
    for name, scale in scales.items():
        torch.testing.assert_close(session.qparams()["0"][name].scale, scale.detach())
        assert scale.item() != pytest.approx(0.01, rel=1e-3)


def by_hand(value, scale):
    """int4: integers from -7 to 7."""
    factor = (value.numel() * 7) ** -0.5
    scale = (scale - scale * factor).detach() + scale * factor
    position = (value / scale).clamp(-7, 7)
    return ((position.round() - position).detach() + position) * scale
