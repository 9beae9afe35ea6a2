"""One of two gloo processes: Accelerate's DDP, each process with data of its own."""

import os
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import WORLD, main, scenario

import tersely
from tersely_integrations.accelerate import Compression

ENTRY = {"op_types": ["Linear"], "sparse_ratio": 0.5}
SCHEDULE = {"name": "agp", "every": 2, "times": 3}
RANGES = {"op_types": ["Linear"], "target_names": ["_input_", "weight"], "quant_dtype": "int8"}


def recipe(algorithm: str) -> dict[str, object]:
    return {
        "pruning": {"algorithm": algorithm, "schedule": SCHEDULE, "config_list": [ENTRY]},
        "quantization": {"algorithm": "qat", "config_list": [RANGES]},
    }


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def batch(rank: int, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(100 * rank + step)
    return torch.randn(6, 4, generator=generator) * (1 + rank)


def begin(rank: int, algorithm: str, **settings: object) -> tuple[Accelerator, Compression, list]:
    # What a launcher sets; the group is there already, so nothing connects to the address.
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    accelerator = Accelerator(cpu=True, **settings)
    assert accelerator.num_processes == WORLD
    model = build()
    compression = Compression(accelerator, recipe(algorithm), model=model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    assert isinstance(wrapped, DistributedDataParallel)
    assert compression.session.model is model
    return accelerator, compression, [wrapped, optimizer]


def train(accelerator: Accelerator, compression: Compression, parts: list, steps: range) -> None:
    model, optimizer = parts
    for step in steps:
        with accelerator.accumulate(model):
            loss = (model(batch(accelerator.process_index, step)) - 1).square().mean()
            accelerator.backward(compression.total_loss(loss))
            optimizer.step()
            compression.step()
            optimizer.zero_grad()


def everywhere(session: tersely.Session) -> None:
    """Masks, scales, what is learned and weights are those of the other process."""
    for name, tensor in session.model.state_dict().items():
        both = [torch.empty_like(tensor) for _ in range(WORLD)]
        distributed.all_gather(both, tensor.detach().contiguous())
        assert torch.equal(*both), name


@scenario
def masks_and_scales_are_the_same(rank: int) -> None:
    for algorithm in ("level", "taylor", "slim"):
        accelerator, compression, parts = begin(rank, algorithm)
        train(accelerator, compression, parts, range(6))
        everywhere(compression.session)
        assert compression.session.sparsity()["0"]["weight"] == 0.5
        assert compression.session.qparams()["2"]["_input_"].scale > 0
        accelerator.free_memory()


@scenario
def gradients_accumulate(rank: int) -> None:
    accelerator, compression, parts = begin(rank, "slim", gradient_accumulation_steps=2)
    train(accelerator, compression, parts, range(12))
    assert compression.session.steps == 6
    everywhere(compression.session)
    accelerator.free_memory()


@scenario
def what_one_process_saved_goes_on_in_both(rank: int, folder: Path) -> None:
    accelerator, compression, parts = begin(rank, "slim")
    train(accelerator, compression, parts, range(3))
    accelerator.save_state(str(folder / "state"))
    accelerator.wait_for_everyone()
    train(accelerator, compression, parts, range(3, 6))
    expected = compression.session.model.state_dict()
    accelerator.free_memory()

    accelerator, again, parts = begin(rank, "slim")
    accelerator.load_state(str(folder / "state"))
    train(accelerator, again, parts, range(3, 6))
    everywhere(again.session)
    for name, value in again.session.model.state_dict().items():
        assert torch.equal(value, expected[name]), name


if __name__ == "__main__":
    sys.exit(main())
