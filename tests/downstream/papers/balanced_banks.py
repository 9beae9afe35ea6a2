"""Cao et al., Efficient and Effective Sparse LSTM on FPGA with Bank-Balanced Sparsity, FPGA 2019,
section 3.1: every row is divided into banks, and each bank loses the same share of its weights.
"""

import tersely


class BalancedBanks:
    """Elements, with the ratio met in each bank of a row.

    Args:
        length: columns in a bank.
    """

    def __init__(self, *, length: int) -> None:
        self.length = length

    def blocks(self, shape: tuple[int, ...], target: tersely.TargetPlan) -> tersely.Blocks:
        ones = (1,) * len(shape)
        return tersely.Blocks(ones, scope=(*ones[:-1], self.length))


@tersely.hookimpl
def tersely_granularities():
    return [
        tersely.GranularityInfo(
            name="balanced_banks",
            implementation="balanced_banks:BalancedBanks",
            summary="Elements, with the ratio met in each bank of a row.",
            paper="Cao et al., BBS, FPGA 2019",
            target_kinds=("parameter",),
            options={
                "type": "object",
                "properties": {"length": {"type": "integer", "minimum": 1}},
                "required": ["length"],
                "additionalProperties": False,
                "examples": [{"length": 4}],
            },
        )
    ]
