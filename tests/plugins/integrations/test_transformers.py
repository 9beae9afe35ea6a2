"""Transformers trains as the plain loop does: the real Trainer, on the CPU."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

import tersely
from tersely_integrations.transformers import TerselyCallback, TerselyTrainer, TerselyTrainerMixin


class InOrder(TerselyTrainerMixin, Trainer):
    """A Trainer that takes its data in order, and whose loss number ``hurt`` overflows."""

    hurt = None
    count = 0

    def get_train_dataloader(self):
        loader = DataLoader(
            self.train_dataset, self.args.per_device_train_batch_size, collate_fn=self.data_collator
        )
        return self.accelerator.prepare(loader)

    def compute_loss(self, model, inputs, *args, **kwargs):
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if model.training:
            self.count += 1
        return loss * float("inf") if model.training and self.count - 1 == self.hurt else loss


def trainer(loops, model, data, *callbacks, folder, kind=InOrder, evaluate=None, **settings):
    settings = {
        "num_train_epochs": 1,
        "save_strategy": "no",
        "lr_scheduler_type": "constant",
        **settings,
    }
    arguments = TrainingArguments(
        str(folder),
        per_device_train_batch_size=4,
        max_grad_norm=0.0,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        **settings,
    )
    return kind(
        model,
        arguments,
        train_dataset=data,
        eval_dataset=evaluate,
        optimizers=(loops.sgd(model.parameters()), None),
        callbacks=list(callbacks),
    )


@pytest.mark.parametrize("name", ["AGP", "MOVEMENT", "SLIM", "QAT", "BOTH"])
def test_a_recipe_trains_as_in_the_plain_loop(loops, tmp_path, name):
    recipe, callback = getattr(loops, name), TerselyCallback(getattr(loops, name))
    trainer(loops, loops.Net(), loops.samples(6), callback, folder=tmp_path).train()
    loops.assert_same(callback.session, loops.trained(recipe, loops.batches(6))[1])


def test_a_session_trains_as_in_the_plain_loop_without_the_mixin(loops, tmp_path):
    class Plain(InOrder):
        compute_loss, train = Trainer.compute_loss, Trainer.train

    model = loops.Net()
    session = tersely.attach(model, loops.BOTH)
    session.compress()
    callback = TerselyCallback(session)
    trainer(loops, model, loops.samples(6), callback, folder=tmp_path, kind=Plain).train()
    assert callback.session is session
    loops.assert_same(session, loops.trained(loops.BOTH, loops.batches(6))[1])


def test_only_optimizer_steps_are_followed(loops, tmp_path):
    callback = TerselyCallback(loops.SLIM)
    settings = {"folder": tmp_path, "gradient_accumulation_steps": 2}
    trainer(loops, loops.Net(), loops.samples(8), callback, **settings).train()
    _, expected = loops.trained(loops.SLIM, loops.batches(8), accumulate=2)
    loops.assert_same(callback.session, expected)


class Counted(nn.Module):
    """A network whose loss is divided by the labels of all accumulated batches, as in Transformers."""

    def __init__(self, loops):
        super().__init__()
        self.inner = loops.Net()

    def forward(self, inputs, labels=None, num_items_in_batch=None, **kwargs):
        outputs = self.inner(inputs, labels)
        if num_items_in_batch is not None:
            outputs["loss"] = outputs["loss"] * labels.numel() / num_items_in_batch
        return outputs


def test_a_loss_divided_by_all_items_is_added_to_what_one_batch_has(loops, tmp_path):
    model, callback = Counted(loops), TerselyCallback(loops.SLIM)
    settings = {"folder": tmp_path, "gradient_accumulation_steps": 2}
    run = trainer(loops, model, loops.samples(2), callback, **settings)
    run.train()
    assert run.model_accepts_loss_kwargs
    # Both batches have 4 labels, so each loss counts a half, and so does each penalty:
    # 0.25 * (8 + 3) / 2 for factors of 1.
    data = loops.batches(2)
    plain = sum(float(loops.Net()(*batch)["loss"].detach()) for batch in data) / 2
    assert run.state.log_history[-1]["train_loss"] == pytest.approx(plain + 1.375)


def test_a_step_that_the_loss_scaler_skips_is_not_followed(loops, tmp_path):
    model, callback = loops.Net(), TerselyCallback(loops.SLIM)
    run = trainer(
        loops, model, loops.samples(4), callback, folder=tmp_path, logging_nan_inf_filter=False
    )
    run.hurt = 1
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4, growth_interval=1000)
    run.accelerator.scaler = scaler
    run.train()
    assert callback.session.steps == 3
    assert scaler.get_scale() == 2.0**3
    # Adam moves each factor by its rate, 0.01, in the first step: three steps, none of them lost.
    [factor, _] = [one for one in model.buffers() if one.requires_grad]
    assert factor.min() < 1 - 2.5 * 0.01


def test_evaluation_in_between_changes_nothing_and_has_the_task_loss(loops, tmp_path):
    callback = TerselyCallback({**loops.SLIM, **loops.QAT})
    settings = {"eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 8}
    run = trainer(
        loops,
        loops.Net(),
        loops.samples(6),
        callback,
        folder=tmp_path,
        evaluate=loops.samples(2),
        **settings,
    )
    run.train()
    _, expected = loops.trained({**loops.SLIM, **loops.QAT}, loops.batches(6))
    loops.assert_same(callback.session, expected)
    inputs, labels = map(torch.cat, zip(*loops.batches(2), strict=True))
    task_loss = expected.model.eval()(inputs, labels)["loss"].item()
    assert run.evaluate()["eval_loss"] == pytest.approx(task_loss)


@pytest.mark.parametrize("resume", ["last", "path"])
@pytest.mark.parametrize("name", ["AGP", "MOVEMENT", "SLIM", "BOTH"])
def test_training_that_is_resumed_ends_as_one_that_was_not_interrupted(
    loops, tmp_path, name, resume
):
    recipe, data = getattr(loops, name), loops.samples(6)
    settings = {"folder": tmp_path, "save_strategy": "steps", "save_steps": 3}
    first = TerselyCallback(recipe)
    trainer(loops, loops.Net(), data, first, StopAt(3), **settings).train()
    assert first.session.steps == 3
    again = TerselyCallback(recipe)
    checkpoint = True if resume == "last" else str(tmp_path / "checkpoint-3")
    trainer(loops, loops.Net(), data, again, **settings).train(checkpoint)
    loops.assert_same(again.session, loops.trained(recipe, loops.batches(6))[1])


@pytest.mark.parametrize("at", [4, 7])
def test_a_stage_that_begins_later_looks_at_batches_also_when_training_is_resumed(
    loops, tmp_path, at
):
    data = loops.samples(8)
    settings = {"folder": tmp_path, "save_strategy": "steps", "save_steps": at}
    first, again = (
        TerselyCallback(loops.PIPELINE, calibration=loops.calibration) for _ in range(2)
    )
    trainer(loops, loops.Net(), data, first, StopAt(at), **settings).train()
    trainer(loops, loops.Net(), data, again, **settings).train(True)
    assert again.session.qparams()["net.0"]["_input_"].scale > 0
    loops.assert_same(again.session, loops.trained(loops.PIPELINE, loops.batches(8))[1])


class StopAt(TrainerCallback):
    """Stops training after some steps, as a power cut would."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def test_the_best_checkpoint_brings_its_session(loops, tmp_path):
    callback, scores = TerselyCallback(loops.AGP), iter([3.0, 1.0, 2.0])
    settings = {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "score",
        "greater_is_better": False,
    }
    run = trainer(
        loops,
        loops.Net(),
        loops.samples(6),
        callback,
        folder=tmp_path,
        evaluate=loops.samples(1),
        **settings,
    )
    run.compute_metrics = lambda _: {"score": next(scores)}
    run.train()
    # Two updates of three: 1 - (1/3)^3 = 26/27 of a half, and floor(32 * 13/27) = 15.
    assert callback.session.sparsity()["net.0"]["weight"] == 15 / 32
    loops.assert_same(callback.session, loops.trained(loops.AGP, loops.batches(6)[:4])[1])


def test_the_session_is_finalized_on_request(loops, tmp_path):
    model, callback = loops.Net(), TerselyCallback(loops.AGP, finalize=True)
    trainer(loops, model, loops.samples(6), callback, folder=tmp_path).train()
    assert (model.net[0].weight == 0).sum() == 16
    assert model.state_dict().keys() == loops.Net().state_dict().keys()


def test_without_the_callback_it_is_the_trainer(loops, tmp_path):
    model = loops.Net()
    trainer(loops, model, loops.samples(6), folder=tmp_path).train()
    expected = loops.Net()
    session = tersely.attach(expected, loops.AGP)
    loops.train(expected, FreeOf(session), loops.batches(6))
    assert torch.equal(model.net[0].weight, dict(expected.named_parameters())["net.0.weight"])


class FreeOf:
    """Stands for a session in the plain loop and does nothing."""

    teacher = None

    def __init__(self, session):
        session.detach()

    def total_loss(self, loss, *, batch):
        return loss

    def step(self):
        pass


def test_a_checkpoint_without_a_session_is_not_resumed_in_silence(loops, tmp_path):
    settings = {"folder": tmp_path, "save_strategy": "steps", "save_steps": 3}
    trainer(loops, loops.Net(), loops.samples(3), **settings).train()
    run = trainer(loops, loops.Net(), loops.samples(6), TerselyCallback(loops.AGP), **settings)
    with pytest.raises(tersely.SessionFileError, match=r"checkpoint-3.tersely does not exist"):
        run.train(True)


def test_gpt2_is_pruned_by_its_conv1d_and_saved_whole(loops, tmp_path):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config)
    entry = {"op_types": ["Conv1D"], "sparse_ratio": 0.5, "exclude_op_names_re": [".*attn"]}
    stage = {**loops.AGP["pruning"], "algorithm": "l1_norm", "config_list": [entry]}
    callback = TerselyCallback({"pruning": stage})
    tokens = torch.arange(8) % 16
    data = [{"input_ids": tokens, "labels": tokens}] * 24
    settings = {"folder": tmp_path, "save_strategy": "steps", "save_steps": 6}
    trainer(loops, model, data, callback, kind=TerselyTrainer, **settings).train()
    # 8 inputs, 32 outputs: a column of the weight is an output, and the bias follows it.
    mask = callback.session.masks()["transformer.h.0.mlp.c_fc"]
    assert mask["weight"].shape == (8, 32)
    assert torch.equal(mask["weight"].any(0), mask["bias"])
    assert int(mask["bias"].sum()) == 16
    again = GPT2LMHeadModel(config)
    session = tersely.load_session(again, tmp_path / "checkpoint-6" / "tersely")
    again.load_state_dict(model.state_dict())
    assert session.steps == 6


def test_weights_that_are_tied_may_be_tied_again_while_attached():
    config = GPT2Config(
        n_layer=1,
        n_embd=16,
        n_head=2,
        vocab_size=40,
        n_positions=16,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    entry = {"op_names": ["lm_head"], "target_names": ["weight"], "sparse_ratio": 0.5}
    session = tersely.prune(model, [entry], algorithm="level")
    model.tie_weights()
    session.step()
    assert int((session.finalize().transformer.wte.weight == 0).sum()) == 320
