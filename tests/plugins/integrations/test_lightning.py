"""Lightning trains as the plain loop does: the real Trainer, on the CPU."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.plugins import MixedPrecision
from torch.utils.data import DataLoader

import tersely
from tersely_integrations.lightning import TerselyCallback, total_loss

pytestmark = [
    # Lightning says how many workers and what logging interval it would like.
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    # Lightning 2.6 asks torch 2.13 in a way that is on its way out.
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.:FutureWarning"),
]


class Module(pl.LightningModule):
    """The network of the plain loop as a LightningModule; loss number ``hurt`` overflows."""

    def __init__(self, loops, hurt=None):
        super().__init__()
        self.model = loops.Net()
        self.loops, self.hurt = loops, hurt
        self.losses, self.scores = [], iter(())

    def training_step(self, batch, batch_idx):
        inputs, labels = batch
        loss = total_loss(self, self.model(inputs, labels)["loss"], inputs)
        self.losses.append(float(loss.detach()))
        return loss * float("inf") if batch_idx == self.hurt else loss

    def validation_step(self, batch, batch_idx):
        inputs, labels = batch
        task_loss = self.model(inputs, labels)["loss"]
        assert total_loss(self, task_loss, inputs) is task_loss
        self.log("score", torch.tensor(next(self.scores, 0.0)))

    def configure_optimizers(self):
        return self.loops.sgd(self.model.parameters())


def fit(module, data, *callbacks, ckpt_path=None, validate=None, **settings):
    settings = {"max_epochs": 1, "enable_checkpointing": False, **settings}
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        **settings,
    )
    trainer.fit(module, loader(data), loader(validate), ckpt_path=ckpt_path)
    return trainer


def loader(data):
    return None if data is None else DataLoader(data, batch_size=None)


@pytest.mark.parametrize("name", ["AGP", "MOVEMENT", "SLIM", "QAT", "BOTH"])
def test_a_recipe_trains_as_in_the_plain_loop(loops, name):
    recipe, module = getattr(loops, name), Module(loops)
    session = tersely.attach(module.model, recipe)
    session.compress()
    fit(module, loops.batches(6), TerselyCallback(session))
    _, expected = loops.trained(recipe, loops.batches(6))
    loops.assert_same(session, expected)


def test_a_recipe_is_attached_to_the_module_when_fitting_starts(loops):
    module, callback = Module(loops), TerselyCallback(loops.AGP)
    with pytest.raises(tersely.SessionError, match="there is no session yet"):
        _ = callback.session
    fit(module, loops.batches(6), callback)
    assert callback.session.model is module
    loops.assert_same(callback.session, loops.trained(loops.AGP, loops.batches(6))[1])


def test_what_the_session_adds_is_part_of_the_loss(loops):
    module = Module(loops)
    fit(module, loops.batches(1), TerselyCallback(loops.SLIM))
    plain = float(loops.Net()(*loops.batches(1)[0])["loss"].detach())
    # A factor of 1 for each of 8 and of 3 rows: 0.25 * (8 + 3) / 2.
    assert module.losses == [pytest.approx(plain + 1.375)]


def test_without_the_callback_the_module_trains_alone(loops):
    module = Module(loops)
    fit(module, loops.batches(1))
    assert module.losses == [float(loops.Net()(*loops.batches(1)[0])["loss"].detach())]


def test_only_optimizer_steps_are_followed(loops):
    module, callback = Module(loops), TerselyCallback(loops.SLIM)
    fit(module, loops.batches(8), callback, accumulate_grad_batches=2)
    assert callback.session.steps == 4
    _, expected = loops.trained(loops.SLIM, loops.batches(8), accumulate=2)
    loops.assert_same(callback.session, expected)


def test_a_step_that_the_loss_scaler_skips_is_not_followed(loops):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4, growth_interval=1000)
    precision = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    module, callback = Module(loops, hurt=1), TerselyCallback(loops.SLIM)
    fit(module, loops.batches(4), callback, plugins=[precision])
    assert callback.session.steps == 3
    assert scaler.get_scale() == 2.0**3
    # Adam moves each factor by its rate, 0.01, in the first step: three steps, none of them lost.
    [factor, _] = [one for one in module.buffers() if one.requires_grad]
    assert factor.min() < 1 - 2.5 * 0.01


def test_evaluation_in_between_changes_nothing(loops):
    module, callback = Module(loops), TerselyCallback(loops.BOTH)
    far = [(inputs * 1000, labels) for inputs, labels in loops.batches(2)]
    fit(module, loops.batches(6), callback, validate=far, val_check_interval=2)
    loops.assert_same(callback.session, loops.trained(loops.BOTH, loops.batches(6))[1])


@pytest.mark.parametrize("name", ["AGP", "MOVEMENT", "SLIM", "BOTH"])
def test_a_fit_that_is_resumed_ends_as_one_that_was_not_interrupted(loops, tmp_path, name):
    recipe, data = getattr(loops, name), loops.batches(3)
    whole = TerselyCallback(recipe)
    fit(Module(loops), data, whole, max_epochs=2)

    trainer = fit(Module(loops), data, TerselyCallback(recipe))
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    again = TerselyCallback(recipe)
    fit(Module(loops), data, again, max_epochs=2, ckpt_path=tmp_path / "half.ckpt")
    loops.assert_same(again.session, _without_prefix(whole.session))


@pytest.mark.parametrize("at", [4, 7])
def test_a_stage_that_begins_later_looks_at_batches_also_when_fitting_is_resumed(
    loops, tmp_path, at
):
    _, whole = loops.trained(loops.PIPELINE, loops.batches(at) * 2)
    # Calibration runs the network that the session is attached to, which the module holds.
    module = Module(loops)
    session = tersely.attach(module.model, loops.PIPELINE)
    session.calibrate(loops.calibration())
    session.compress()
    first = TerselyCallback(session)
    fit(module, loops.batches(at), first).save_checkpoint(tmp_path / "half.ckpt")

    module = Module(loops)
    session = tersely.attach(module.model, loops.PIPELINE)
    again = TerselyCallback(session, calibration=loops.calibration)
    ckpt_path = tmp_path / "half.ckpt"
    fit(module, loops.batches(at), again, max_epochs=2, ckpt_path=ckpt_path)
    assert again.session.qparams()["net.0"]["_input_"].scale > 0
    loops.assert_same(again.session, whole)


def test_the_best_checkpoint_brings_its_session(loops, tmp_path):
    module, callback = Module(loops), TerselyCallback(loops.AGP)
    module.scores = iter([3.0, 1.0, 2.0])
    best = ModelCheckpoint(tmp_path, monitor="score", save_top_k=1)
    settings = {"max_epochs": 3, "enable_checkpointing": True, "validate": loops.batches(1)}
    trainer = fit(module, loops.batches(2), callback, best, **settings)
    assert callback.session.steps == 6
    trainer.validate(module, loader(loops.batches(1)), ckpt_path="best", verbose=False)
    # Two updates of three: 1 - (1/3)^3 = 26/27 of a half, and floor(32 * 13/27) = 15.
    assert callback.session.steps == 4
    assert callback.session.sparsity()["model.net.0"]["weight"] == 15 / 32
    loops.assert_same(callback.session, loops.trained(loops.AGP, loops.batches(2) * 2)[1])


def test_a_checkpoint_is_tested_in_a_new_process_with_what_was_in_force(loops, tmp_path):
    module, callback = Module(loops), TerselyCallback(loops.AGP)
    trainer = fit(module, loops.batches(6), callback)
    trainer.save_checkpoint(tmp_path / "done.ckpt")
    fresh, again = Module(loops), TerselyCallback(loops.AGP)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[again]
    )
    trainer.validate(
        fresh, loader(loops.batches(1)), ckpt_path=tmp_path / "done.ckpt", verbose=False
    )
    loops.assert_same(again.session, _without_prefix(callback.session))


def test_the_session_is_finalized_on_request(loops, tmp_path):
    module = Module(loops)
    callback = TerselyCallback(loops.AGP, finalize=True)
    trainer = fit(module, loops.batches(6), callback)
    assert (module.model.net[0].weight == 0).sum() == 16
    assert module.state_dict().keys() == Module(loops).state_dict().keys()
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    loaded = torch.load(tmp_path / "plain.ckpt", weights_only=True)
    assert loaded["callbacks"] == {}


def test_a_recipe_that_cannot_be_compressed_leaves_the_module_as_it_was(loops):
    recipe = {
        "pruning": {
            "algorithm": "apoz",
            "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5}],
        }
    }
    module = Module(loops)
    with pytest.raises(tersely.SessionError, match=r"call session\.calibrate"):
        fit(module, loops.batches(1), TerselyCallback(recipe))
    assert module.state_dict().keys() == Module(loops).state_dict().keys()


def test_calibration_comes_before_compressing(loops):
    class Callable(Module):
        def forward(self, inputs):
            return self.model(inputs)

    entry = {"op_names": ["model.net.0"], "target_names": ["_output_"], "sparse_ratio": 0.25}
    recipe = {
        "pruning": {
            "algorithm": "l1_norm",
            "config_list": [{**entry, "granularity": "per_channel"}],
        }
    }
    callback = TerselyCallback(recipe, calibration=loops.calibration)
    fit(Callable(loops), loops.batches(2), callback)
    assert callback.session.sparsity()["model.net.0"]["_output_"] == 0.25


def test_prepare_calibrates_what_needs_it(loops):
    entry = {
        "op_names": ["model.net.0"],
        "target_names": ["_output_"],
        "sparse_ratio": 0.25,
        "granularity": "per_channel",
    }
    recipe = {"pruning": {"algorithm": "l1_norm", "config_list": [entry]}}

    def prepare(session):
        batches = [inputs for inputs, _ in loops.batches(2)]
        session.calibrate(batches, forward=lambda module, inputs: module.model(inputs))
        session.compress()

    callback = TerselyCallback(recipe, prepare=prepare)
    fit(Module(loops), loops.batches(2), callback)
    assert callback.session.sparsity()["model.net.0"]["_output_"] == 0.25


class Handed(Module):
    """Gives what the session learns to the optimizer of its weights."""

    def configure_optimizers(self):
        [callback] = [one for one in self.trainer.callbacks if isinstance(one, TerselyCallback)]
        return self.loops.sgd([*self.parameters(), *callback.session.parameters()])


def test_what_is_learned_can_be_moved_by_the_modules_optimizer_and_resumes(loops, tmp_path):
    data = loops.batches(3)
    whole, half, again = [TerselyCallback(loops.SLIM) for _ in range(3)]
    fit(Handed(loops), data, whole, max_epochs=2)
    fit(Handed(loops), data, half).save_checkpoint(tmp_path / "half.ckpt")
    fit(Handed(loops), data, again, max_epochs=2, ckpt_path=tmp_path / "half.ckpt")
    learned = [one for one in again.session.model.buffers() if one.requires_grad]
    assert len(learned) == 2
    assert all((one != 1).any() for one in learned)
    loops.assert_same(again.session, _without_prefix(whole.session))


def _without_prefix(session):
    """Lets a session of a whole module stand where one of its network is expected."""

    class Renamed:
        class model:  # noqa: N801  # read like a module
            @staticmethod
            def state_dict():
                return {
                    name.removeprefix("model."): value
                    for name, value in session.model.state_dict().items()
                }

        steps = session.steps

    return Renamed


LINEAR = {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}
HELD = {"pruning": {"algorithm": "level", "hold": "step", "config_list": [LINEAR]}}


@pytest.mark.filterwarnings("ignore:.*stay instrumented")
@pytest.mark.parametrize("name", ["AGP", "HELD", "QAT"])
def test_an_average_of_weights_computes_as_the_finished_model(loops, name):
    recipe = HELD if name == "HELD" else getattr(loops, name)
    module = Module(loops)
    session = tersely.attach(module, recipe)
    session.compress()
    average = WeightAveraging(use_buffers=False)
    fit(module, loops.batches(6), TerselyCallback(session), average)
    inputs = loops.batches(1)[0]

    found = module.eval().model(*inputs)
    finished = session.finalize().model(*inputs)

    assert torch.equal(found["loss"], finished["loss"])


@pytest.mark.parametrize("is_first", [False, True])
def test_an_average_whose_copy_lacks_masks_is_refused(loops, is_first):
    callbacks = [TerselyCallback(loops.AGP), WeightAveraging()]
    with pytest.raises(tersely.SessionError, match=r"WeightAveraging copied .* session\.compress"):
        fit(Module(loops), loops.batches(6), *(callbacks[::-1] if is_first else callbacks))
