"""Agreement with the reference, where the granularity is each algorithm's own."""

import pytest

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


@pytest.mark.golden("prune.pt", select=has_default_granularity)
def test_importances_masks_and_outputs_agree(case, compare_with_reference):
    compare_with_reference(case)
