"""Accelerate trains as the plain loop does: the real Accelerator, on the CPU."""

import pytest
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

import tersely
from tersely_integrations.accelerate import Compression


@pytest.fixture(autouse=True)
def own_state():
    """Accelerate keeps one state for the process, whatever Accelerator was made first."""
    yield
    Accelerator().free_memory()
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def train(accelerator, compression, model, data, *, optimizer, hurt=None):
    """A loop as Accelerate's documentation has it, with three calls of ours."""
    model, optimizer, loader = accelerator.prepare(
        model, optimizer, DataLoader(data, batch_size=None)
    )
    model.train()
    for number, (inputs, labels) in enumerate(loader):
        with accelerator.accumulate(model):
            loss = compression.total_loss(model(inputs, labels)["loss"], inputs)
            accelerator.backward(loss * float("inf") if number == hurt else loss)
            optimizer.step()
            compression.step()
            optimizer.zero_grad()


def begun(loops, recipe, **settings):
    accelerator, model = Accelerator(cpu=True, **settings), loops.Net()
    return accelerator, model, Compression(accelerator, recipe, model=model)


@pytest.mark.parametrize("name", ["AGP", "MOVEMENT", "SLIM", "QAT", "BOTH"])
def test_a_recipe_trains_as_in_the_plain_loop(loops, name):
    accelerator, model, compression = begun(loops, getattr(loops, name))
    train(
        accelerator, compression, model, loops.batches(6), optimizer=loops.sgd(model.parameters())
    )
    _, expected = loops.trained(getattr(loops, name), loops.batches(6))
    loops.assert_same(compression.session, expected)


def test_only_optimizer_steps_are_followed(loops):
    accelerator, model, compression = begun(loops, loops.SLIM, gradient_accumulation_steps=2)
    train(
        accelerator, compression, model, loops.batches(8), optimizer=loops.sgd(model.parameters())
    )
    _, expected = loops.trained(loops.SLIM, loops.batches(8), accumulate=2)
    loops.assert_same(compression.session, expected)


def test_a_step_that_the_loss_scaler_skips_is_not_followed(loops):
    accelerator, model, compression = begun(loops, loops.SLIM)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4, growth_interval=1000)
    optimizer = loops.sgd(model.parameters())
    train(accelerator, compression, model, loops.batches(4), optimizer=optimizer, hurt=1)
    assert compression.session.steps == 3
    assert accelerator.scaler.get_scale() == 2.0**3
    # Adam moves each factor by its rate, 0.01, in the first step: three steps, none of them lost.
    [factor, _] = [one for one in model.buffers() if one.requires_grad]
    assert factor.min() < 1 - 2.5 * 0.01


@pytest.mark.parametrize("name", ["AGP", "MOVEMENT", "SLIM", "BOTH"])
def test_a_loaded_state_ends_as_training_that_was_not_interrupted(loops, tmp_path, name):
    recipe, data = getattr(loops, name), loops.batches(8)
    accelerator, model, compression = begun(loops, recipe)
    train(accelerator, compression, model, data[:4], optimizer=loops.sgd(model.parameters()))
    accelerator.save_state(str(tmp_path))
    accelerator.free_memory()

    accelerator, model, compression = begun(loops, recipe)
    optimizer = loops.sgd(model.parameters())
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.load_state(str(tmp_path))
    assert compression.session.steps == 4
    train(accelerator, compression, model, data[4:], optimizer=optimizer)
    loops.assert_same(compression.session, loops.trained(recipe, data)[1])


@pytest.mark.parametrize("at", [4, 7])
def test_a_stage_that_begins_later_looks_at_batches_also_after_a_state_was_loaded(
    loops, tmp_path, at
):
    data = loops.batches(8)
    settings = {"calibration": loops.calibration}
    accelerator = Accelerator(cpu=True)
    model = loops.Net()
    compression = Compression(accelerator, loops.PIPELINE, model=model, **settings)
    train(accelerator, compression, model, data[:at], optimizer=loops.sgd(model.parameters()))
    accelerator.save_state(str(tmp_path))
    accelerator.free_memory()

    accelerator, model = Accelerator(cpu=True), loops.Net()
    compression = Compression(accelerator, loops.PIPELINE, model=model, **settings)
    optimizer = loops.sgd(model.parameters())
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.load_state(str(tmp_path))
    train(accelerator, compression, model, data[at:], optimizer=optimizer)
    assert compression.session.qparams()["net.0"]["_input_"].scale > 0
    loops.assert_same(compression.session, loops.trained(loops.PIPELINE, data)[1])


def test_a_saved_state_holds_a_session_that_loads_without_accelerate(loops, tmp_path):
    accelerator, model, compression = begun(loops, loops.AGP)
    train(
        accelerator, compression, model, loops.batches(6), optimizer=loops.sgd(model.parameters())
    )
    accelerator.save_state(str(tmp_path))
    session = tersely.load_session(loops.Net(), tmp_path / "tersely")
    assert torch.equal(
        session.masks()["net.0"]["weight"], compression.session.masks()["net.0"]["weight"]
    )


def test_a_state_that_was_saved_with_another_recipe_is_refused(loops, tmp_path):
    accelerator, _, _ = begun(loops, loops.AGP)
    accelerator.save_state(str(tmp_path))
    accelerator.free_memory()
    accelerator, model, _ = begun(loops, loops.MOVEMENT)
    with pytest.raises(tersely.SessionFileError) as caught:
        accelerator.load_state(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path / 'tersely'} was saved with another recipe than the one that is given now; train "
        f"on with that one, or give tersely.load_session(model, '{tmp_path / 'tersely'}') instead of "
        f"a recipe and do not resume"
    )
    assert model.state_dict().keys() == loops.Net().state_dict().keys()


def test_what_is_learned_can_be_moved_by_the_loops_optimizer(loops, tmp_path):
    accelerator, model, compression = begun(loops, loops.SLIM)
    optimizer = torch.optim.SGD(compression.parameters(), lr=0.5)
    train(accelerator, compression, model, loops.batches(1), optimizer=optimizer)
    assert all((one != 1).any() for one in model.buffers() if one.requires_grad)
    accelerator.save_state(str(tmp_path))
    with pytest.raises(tersely.SessionError) as caught:
        accelerator.load_state(str(tmp_path))
    assert str(caught.value) == (
        "load_state() replaces the session, and your optimizer has tensors of the current one; "
        "begin with tersely.load_session(model, checkpoint / 'tersely'), take its parameters, and give "
        "it with restore=False"
    )


def test_a_session_that_was_loaded_before_is_left_alone(loops, tmp_path):
    accelerator, model, compression = begun(loops, loops.SLIM)
    optimizer = loops.sgd([*model.parameters(), *compression.parameters()])
    train(accelerator, compression, model, loops.batches(3), optimizer=optimizer)
    accelerator.save_state(str(tmp_path))
    accelerator.free_memory()
    train(accelerator, compression, model, loops.batches(3), optimizer=optimizer)

    accelerator, fresh = Accelerator(cpu=True), loops.Net()
    session = tersely.load_session(fresh, tmp_path / "tersely")
    again = Compression(accelerator, session, restore=False)
    resumed = loops.sgd([*fresh.parameters(), *again.parameters()])
    fresh, resumed = accelerator.prepare(fresh, resumed)
    accelerator.load_state(str(tmp_path))
    train(accelerator, again, fresh, loops.batches(3), optimizer=resumed)
    loops.assert_same(again.session, compression.session)


def test_it_finalizes_and_saves_no_session_afterwards(loops, tmp_path):
    accelerator, model, compression = begun(loops, loops.AGP)
    train(
        accelerator, compression, model, loops.batches(6), optimizer=loops.sgd(model.parameters())
    )
    assert compression.finalize() is model
    accelerator.save_state(str(tmp_path))
    assert not (tmp_path / "tersely").exists()
    assert (model.net[0].weight == 0).sum() == 16


def test_a_recipe_without_a_model_is_refused(loops):
    with pytest.raises(ValueError, match="a recipe needs a model to attach to; give model="):
        Compression(Accelerator(cpu=True), loops.AGP)


def test_a_session_with_another_teacher_is_refused(loops):
    session = tersely.attach(loops.Net(), loops.AGP)
    with pytest.raises(
        ValueError, match="the session already has its teacher; give the teacher to"
    ):
        Compression(Accelerator(cpu=True), session, teacher=loops.Net(1))
