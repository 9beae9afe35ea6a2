"""Each framework distils as the plain loop does: half of the task loss, and two losses of the teacher.

The second one asks for the labels of the batch.
"""

import lightning.pytorch as pl
import pytest
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import TrainingArguments

import tersely
from tersely_integrations import accelerate, lightning, transformers

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.:FutureWarning"),
]


@pytest.fixture
def expected(loops):
    return loops.trained(loops.DISTILLED, loops.batches(4), teacher=loops.Net(7))[1]


class Module(pl.LightningModule):
    def __init__(self, loops, *, is_distilled=True):
        super().__init__()
        self.model, self.loops, self.is_distilled = loops.Net(), loops, is_distilled

    def training_step(self, batch, batch_idx):
        inputs, labels = batch
        loss = self.model(inputs, labels)["loss"]
        if not self.is_distilled:
            return loss
        return lightning.total_loss(self, loss, inputs, batch={"labels": labels})

    def configure_optimizers(self):
        return self.loops.sgd(self.parameters())


def fit(module, loops, callback):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
    )
    trainer.fit(module, DataLoader(loops.batches(4), batch_size=None))


def test_lightning(loops, expected):
    module = Module(loops)
    session = tersely.attach(module.model, loops.DISTILLED, teacher=loops.Net(7))
    fit(module, loops, lightning.TerselyCallback(session))
    loops.assert_same(session, expected)


def test_a_recipe_that_distils_in_vain_is_an_error(loops):
    recipe = {"distillation": {"config_list": [{"op_names": ["model.net.2"], "link": "net.2"}]}}
    callback = lightning.TerselyCallback(recipe, teacher=loops.Net(7))
    with pytest.raises(tersely.SessionError) as caught:
        fit(Module(loops, is_distilled=False), loops, callback)
    assert str(caught.value) == (
        "the recipe distils, but its loss is not part of what is trained: in Lightning return "
        "total_loss(self, loss, inputs) from training_step, in Transformers use TerselyTrainer, with "
        "Accelerate call compression.total_loss(loss, inputs)"
    )


def test_transformers(loops, expected, tmp_path):
    class InOrder(transformers.TerselyTrainer):
        def get_train_dataloader(self):
            loader = DataLoader(self.train_dataset, 4, collate_fn=self.data_collator)
            return self.accelerator.prepare(loader)

    model = loops.Net()
    callback = transformers.TerselyCallback(loops.DISTILLED, teacher=loops.Net(7))
    arguments = TrainingArguments(
        str(tmp_path),
        num_train_epochs=1,
        per_device_train_batch_size=4,
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    optimizers = (loops.sgd(model.parameters()), None)
    data = loops.samples(4)
    InOrder(
        model, arguments, train_dataset=data, optimizers=optimizers, callbacks=[callback]
    ).train()
    loops.assert_same(callback.session, expected)


def test_accelerate(loops, expected):
    accelerator, model = Accelerator(cpu=True), loops.Net()
    compression = accelerate.Compression(
        accelerator, loops.DISTILLED, model=model, teacher=loops.Net(7)
    )
    optimizer = loops.sgd(model.parameters())
    model, optimizer, loader = accelerator.prepare(
        model, optimizer, DataLoader(loops.batches(4), batch_size=None)
    )
    model.train()
    for inputs, labels in loader:
        loss = model(inputs, labels)["loss"]
        batch = {"labels": labels}
        accelerator.backward(compression.total_loss(loss, inputs, batch=batch))
        optimizer.step()
        compression.step()
        optimizer.zero_grad()
    loops.assert_same(compression.session, expected)
