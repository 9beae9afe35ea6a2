"""One of two gloo processes: DDP as Lightning and Transformers set it up, each with its own data."""

import os
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainingArguments
from two_processes import WORLD, main, scenario

import tersely
from tersely_integrations import lightning as for_lightning
from tersely_integrations import transformers as for_transformers

PRUNE = {
    "algorithm": "taylor",
    "schedule": {"name": "agp", "every": 1, "times": 3},
    "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5}],
}
QUANTIZE = {
    "algorithm": "qat",
    "config_list": [{"op_types": ["Linear"], "target_names": ["_input_", "weight"]}],
}
RECIPE = {
    "stages": [{"pruning": PRUNE, "until": 3}, {"quantization": QUANTIZE}],
    "distillation": {"config_list": [{"op_names": ["net.2"], "apply_method": "mse"}]},
}
STEPS = 6

# Lightning 2.6 asks torch 2.13 in a way that is on its way out, and says what it would like.
warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.")
warnings.filterwarnings("ignore", message=".*does not have many workers")
warnings.filterwarnings("ignore", message=".*smaller than the logging interval")


class Net(nn.Module):
    """A small classifier of four numbers, with its loss when it is given labels."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, inputs, labels=None):
        logits = self.net(inputs)
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        return {"logits": logits} if loss is None else {"loss": loss, "logits": logits}


def samples(count: int) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, 4, generator=generator)
    return [{"inputs": one, "labels": one[:3].argmax()} for one in inputs]


def set_up(rank: int) -> None:
    """Set what a launcher sets; the group is there already, so nothing connects to the address."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "GROUP_RANK": "0"}
    os.environ |= {"LOCAL_WORLD_SIZE": str(WORLD), "TORCHELASTIC_RUN_ID": "tersely"}


def check(session: tersely.Session) -> None:
    """The pipeline is through, and everything is as in the other process."""
    assert session.steps == STEPS
    assert session.sparsity()["net.0"]["weight"] == 0.5
    assert session.qparams()["net.2"]["_input_"].scale > 0
    for name, tensor in session.model.state_dict().items():
        both = [torch.empty_like(tensor) for _ in range(WORLD)]
        distributed.all_gather(both, tensor.detach().contiguous())
        assert torch.equal(*both), name


class Module(pl.LightningModule):
    """The network as a LightningModule."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Net(0)
        self.seen: list[float] = []

    def training_step(self, batch, batch_idx):
        assert isinstance(self.trainer.strategy.model, DistributedDataParallel)
        self.seen.append(float(batch["inputs"].sum()))
        loss = self.model(**batch)["loss"]
        return for_lightning.total_loss(self, loss, batch["inputs"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)


def differs_elsewhere(seen: list[float]) -> bool:
    everyone: list[list[float]] = [[] for _ in range(WORLD)]
    distributed.all_gather_object(everyone, seen)
    return everyone[0] != everyone[1]


@scenario
def lightning(rank: int) -> None:
    set_up(rank)
    module = Module()
    session = tersely.attach(module.model, RECIPE, teacher=Net(1))
    session.compress()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=WORLD,
        strategy=DDPStrategy(cluster_environment=TorchElasticEnvironment()),
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[for_lightning.TerselyCallback(session)],
    )
    trainer.fit(module, DataLoader(samples(STEPS * WORLD * 4), batch_size=4))
    assert differs_elsewhere(module.seen)
    check(session)


class Seen(TrainerCallback):
    """Remembers whether the Trainer wrapped the model."""

    wrapped: object = None

    def on_step_begin(self, args, state, control, **kwargs):
        self.wrapped = self.trainer.model_wrapped


@scenario
def transformers(rank: int, folder: Path) -> None:
    set_up(rank)
    model, seen = Net(0), Seen()
    session = tersely.attach(model, RECIPE, teacher=Net(1))
    session.compress()
    arguments = TrainingArguments(
        output_dir=str(folder / "transformers"),
        use_cpu=True,
        ddp_backend="gloo",
        max_steps=STEPS,
        per_device_train_batch_size=4,
        learning_rate=0.1,
        report_to=[],
        save_strategy="steps",
        save_steps=4,
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    trainer = for_transformers.TerselyTrainer(
        model=model,
        args=arguments,
        train_dataset=samples(STEPS * WORLD * 4),
        callbacks=[for_transformers.TerselyCallback(session), seen],
    )
    seen.trainer = trainer
    assert arguments.world_size == WORLD
    trainer.train()
    assert isinstance(seen.wrapped, DistributedDataParallel)
    check(session)

    # One process saved; both go on from there.
    again = Net(0)
    trainer = for_transformers.TerselyTrainer(
        model=again,
        args=arguments,
        train_dataset=samples(STEPS * WORLD * 4),
        callbacks=[for_transformers.TerselyCallback(RECIPE, teacher=Net(1))],
    )
    trainer.train(resume_from_checkpoint=str(folder / "transformers" / "checkpoint-4"))
    resumed = next(
        one for one in trainer.callback_handler.callbacks if hasattr(one, "total_loss")
    ).session
    check(resumed)
    for name, tensor in session.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


if __name__ == "__main__":
    sys.exit(main())
