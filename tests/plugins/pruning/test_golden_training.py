"""Agreement with the reference where training and pruning go together."""

import pytest
from messages.sessions import NOTHING_KEPT


def has_default_granularity(case):
    return not any("granularity" in entry for entry in case["config_list"])


@pytest.mark.filterwarnings(f"ignore:.*{NOTHING_KEPT}")
@pytest.mark.golden("prune_train.pt", select=has_default_granularity)
def test_losses_importances_masks_and_weights_agree(case, train_like_the_reference):
    train_like_the_reference(case)
