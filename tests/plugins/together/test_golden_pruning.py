"""Agreement with the reference where pruning and granularity meet."""

import pytest


def has_granularity(case):
    settings = [
        setting
        for entry in case["config_list"]
        for setting in (entry, *entry.get("target_settings", {}).values())
    ]
    return any(setting.get("granularity", "default") != "default" for setting in settings)


@pytest.mark.golden("prune.pt", select=has_granularity)
def test_importances_masks_and_outputs_agree(case, compare_with_reference):
    compare_with_reference(case)


@pytest.mark.golden("prune_train.pt", select=has_granularity)
def test_losses_of_training_agree(case, train_like_the_reference):
    train_like_the_reference(case)
