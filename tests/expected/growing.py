"""Config lists with an entry for each module, whose planning must not take squares of their length."""

ENTRIES = {
    "by name": lambda number: {"op_names": [str(number)], "lambda": 1},
    "by name and type": lambda number: {"op_names": [str(number)], "op_types": ["ReLU"]},
    "with excludes": lambda number: {
        "op_names": [str(number)],
        "exclude_op_names": ["0.5"],
        "exclude_op_types": ["Sequential"],
    },
    "without a match": lambda number: {"op_names": [f"layer{number}"]},
}
"""Name -> the entry of the module of a number."""


def follower(number):
    """The entry of a module that is aligned with the one before it; the first one is sparse."""
    follow = {"align": {"module_name": str(number - 1), "target_name": "_output_", "dims": [1]}}
    own = follow if number else {"sparse_ratio": 0.5}
    return {"op_names": [str(number)], "target_settings": {"_output_": own}}
