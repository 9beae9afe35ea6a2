"""Family schedule: factors, and what is masked step by step."""

import pytest

import laconic


@pytest.mark.spec("schedule", expects="factors")
def test_factors(case):
    schedule = case["given"]["schedule"]
    times = schedule["times"]
    function = laconic.registry().schedules[schedule["name"]]
    found = [function(update / times) for update in range(1, times + 1)]
    assert found == pytest.approx(case["expect"]["factors"])


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
    session = laconic.attach(model, {"pruning": stage})
    session.compress()
    assert not (~session.masks()["layer"]["weight"]).sum()
    found = []
    for _ in case["expect"]["masked"]:
        session.step()
        found.append(int((~session.masks()["layer"]["weight"]).sum()))
    assert found == case["expect"]["masked"]
