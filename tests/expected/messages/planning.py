"""Names, targets and groups of a plan that do not fit the model or each other."""

PLAN_AGAIN = "plan again with tersely.plan(model, recipe)"
NONE_THERE = "the module has None there"
NO_SUCH_TYPE = "no module has this type"
NO_SUCH_NAME = "no module has this name"
INDIVISIBLE = "does not divide the shape"
NO_SUCH_ARGUMENT = "forward has no argument of this name; it has:"
SEVERAL_TENSORS = "is a mapping with several tensors"
WRITE_THE_KEY = "write the key, as in"
ADDRESS_A_TENSOR = "is a list, not a tensor; address a tensor, or leave this target out"
ONE_DECISION = "its members share one decision"
DIFFERENT_SCOPES = (
    "but their granularities count the ratio in different scopes; give them the same granularity"
)
SAME_NUMBER_OF_BLOCKS = "the same number of blocks"
SAME_POSITIONS = "are pruned at the same positions"
COUNTS_IN_SCOPES = "counts the ratio in scopes"
REMOVE_ONE = "remove one of the two"
KEPT_AMONG_NEIGHBOURS = "fixes how many are kept among neighbours"
NO_MEANING_FOR_IT = "has no meaning for it"
NO_MEANING = "has no meaning; remove it"
EQUAL_RATIOS = "remove sparse_ratio or make them equal"
EQUAL_LENGTHS = "choose align.dims so that both have the same length"
LEAVE_OUT_BY_NAME = "leave it out with exclude_op_names"
LEAVE_ONE_OUT = "leave one of them out with exclude_op_names"
LEAVE_IT_OUT = "leave it out of the"
NO_RULE = "there is no rule for"
NO_VALUE_BRANCHES = "take branches that depend on values out of forward"
SHARED_CHANNELS = "share their output channels"
NOT_IN_MODEL = "which the model does not have"
NOT_IN_TEACHER = "the teacher does not have"
LINK_ANOTHER = "link a module that has it"
NO_SUCH_TARGET = "the plan has no target"
NO_TARGET_REACHED = "reaches no target of this model"


def no_module(name: str) -> str:
    """A name of a module that the model lacks."""
    return f"the model has no module {name!r}"


def left_over(count: int, size: int) -> str:
    """What blocks do not cover."""
    return f"{count} left over by blocks of {size}"
