"""Family schedule: factors, and what is masked step by step."""

import pytest

import tersely


def factors_of(schedule, count):
    """The share that is due after each of the first updates, or steps where they are steps."""
    if schedule.get("algorithm") == "movement":
        movement = tersely.registry().pruners["movement"](
            warmup_steps=schedule["warm_up"], cooldown_begin_step=schedule["cool_down_begin"]
        )
        return [float(movement.factor(step)) for step in range(1, count + 1)]
    function = tersely.registry().schedules[schedule["name"]]
    return [function(update / schedule["times"]) for update in range(1, count + 1)]


@pytest.mark.spec("schedule", expects="factors")
def test_factors(case):
    expected = case["expect"]["factors"]
    assert factors_of(case["given"]["schedule"], len(expected)) == pytest.approx(expected)


@pytest.mark.spec("schedule", expects="masked")
def test_masked(case, models):
    given = case["given"]
    weight = {"weight": {"values": [given["importance"]]}}
    model = models.build({"modules": [{"name": "layer", "type": "Linear", "parameters": weight}]})
    stage = {
        "algorithm": "level",
        "schedule": given["schedule"],
        "config_list": [{"op_names": ["layer"], "target_names": ["weight"], **given["setting"]}],
    }
    session = tersely.attach(model, {"pruning": stage})
    session.compress()
    assert not (~session.masks()["layer"]["weight"]).sum()
    found = []
    for _ in case["expect"]["masked"]:
        session.step()
        found.append(int((~session.masks()["layer"]["weight"]).sum()))
    assert found == case["expect"]["masked"]
