"""Agreement with the reference, where the granularity is each algorithm's own."""

import pytest
import torch

import tersely

DECIDED_OTHERWISE = {
    # An embedding's output channels are dimension 1 (G3), not the rows of its vocabulary.
    "emb_default_L1NormPruner": "G3",
}


def has_default_granularity(case):
    settings = [
        setting
        for entry in case["config_list"]
        for setting in (entry, *entry.get("target_settings", {}).values())
    ]
    return case["name"] not in DECIDED_OTHERWISE and all(
        setting.get("granularity", "default") == "default" for setting in settings
    )


# One case configures a target twice on purpose, to see the first entry win.
@pytest.mark.filterwarnings("ignore:2 configured twice:tersely.planning.resolve.PlanWarning")
# Some cases ask for what their blocks or bounds do not allow, to see what comes closest.
@pytest.mark.filterwarnings("ignore::tersely.reporting.report.SparsityWarning")
@pytest.mark.golden("prune.pt", select=has_default_granularity)
def test_importances_masks_and_outputs_agree(case, compare_with_reference):
    compare_with_reference(case)


@pytest.mark.golden("prune.pt", select=lambda case: case["name"] in DECIDED_OTHERWISE)
def test_the_output_channels_of_an_embedding_are_dimension_one(case, golden):
    session = tersely.prune(golden.model(case), case["config_list"], algorithm="l1_norm")
    columns = case["state_dict"]["emb.weight"].abs().sum(0)
    expected = torch.ones(6, dtype=torch.bool).scatter(0, columns.argsort()[:3], False)
    assert torch.equal(session.masks()["emb"]["weight"], expected.expand(10, 6))
