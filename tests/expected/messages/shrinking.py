"""Why a channel cannot be removed."""

DEPENDS_ON_INPUT = "reads values there that depend on the input"
OTHER_DIMENSION = "mask what lies along another dimension, or leave the layer out of the config"
EQUALLY_MANY = "every part has to lose equally many"
PADDED_CONSTANT = "reads a constant there that is not zero at a padded border"
PRUNE_WITH_NORM = (
    "prune the norm and the bias before it with the layer: list the norm's type in op_types "
    "beside the layer's with dependency_groups: auto, or align it"
)
SAME_RATIO = "ask for the same ratio in each part: internal_metric_block"
ONE_STAYS = "one has to stay of"
OUTPUT_OF_MODEL = "it is an output of the model"
CANNOT_FOLLOW = "cannot follow the model's forward"
EXAMPLE_FAILS = "cannot run the model with its example_inputs"
