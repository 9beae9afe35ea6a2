"""Two gloo processes whose losses have state: ``worker.py FOLDER``."""

from types import SimpleNamespace

import torch
from two_processes import main, scenario

from tersely.contracts import StatefulLoss
from tersely.distillation.states import LossStates


class Bank(StatefulLoss):
    """Four places, and a number of calls."""

    def build(self, student, teacher):
        self.register_buffer("bank", torch.zeros(4))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.head = torch.nn.Linear(student[-1], 2)

    def forward(self, student, teacher):
        raise AssertionError


@scenario
def buffers_are_brought_together(rank: int) -> None:
    states = LossStates()
    asked = SimpleNamespace(function=Bank, own_options={}, info=SimpleNamespace(name="bank"))
    module = states.add("fc._output_", asked, ([2, 3], None), torch.device("cpu"))

    # Place 0 is written by the first process, 1 by the second, 2 by both, 3 by neither.
    module.bank[rank] = 0.1 + rank
    module.bank[2] = 4.0 * rank + 1
    module.calls += 1
    states.share()

    assert torch.equal(module.bank, torch.tensor([0.1, 1.1, 3.0, 0.0]))
    assert module.calls == 1
    module.bank[3] = 7.0
    states.share()
    assert module.bank[3] == 7


if __name__ == "__main__":
    main()
