"""Losses that are classes with state of their own."""

import copy

import pytest
import torch
from torch import nn

import tersely
from tersely.contracts import StatefulLoss

BATCH = torch.tensor([[1.0, 0.0], [2.0, 3.0]])
INDICES = torch.tensor([2, 0])


class Memory(StatefulLoss):
    """A learned head before the distance, and a bank that holds each sample's last output."""

    def __init__(self, *, samples=4):
        super().__init__()
        self.samples = samples

    def build(self, student, teacher):
        self.head = nn.Linear(student[-1], teacher[-1])
        self.register_buffer("bank", torch.zeros(self.samples, student[-1]))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, student, teacher, *, indices):
        moved = (student - self.bank[indices]).square().mean()
        self.bank[indices] = student.detach()
        self.calls += 1
        return (self.head(student) - teacher).square().mean() + moved


class Unbuilt(Memory):
    def build(self, student, teacher):
        raise RuntimeError("no such width")


class Counting(StatefulLoss):
    """Compares with no teacher, and counts its calls."""

    def build(self, student, teacher):
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, student, teacher):
        self.calls += 1
        return student.square().mean()


@pytest.fixture(autouse=True)
def memory(provide):
    options = {
        "type": "object",
        "properties": {
            "samples": {"type": "integer"},
            "indices": {"type": "string", "default": "indices"},
        },
        "additionalProperties": False,
    }
    infos = [
        tersely.LossInfo(
            name=name,
            implementation=f"tersely_toy_memory:{cls.__name__}",
            options=options,
            batch_options=("indices",),
        )
        for name, cls in (("toy_memory", Memory), ("toy_unbuilt", Unbuilt))
    ]
    infos.append(
        tersely.LossInfo(
            name="toy_counting", implementation="tersely_toy_memory:Counting", needs="nothing"
        )
    )

    with provide("tersely_toy_memory", *infos, Memory=Memory, Unbuilt=Unbuilt, Counting=Counting):
        yield


@pytest.fixture
def wide(filled):
    return filled(3.0, width=5)


def attach(student, wide, **keys):
    entry = {"op_names": ["0"], "apply_method": "toy_memory", **keys}
    return tersely.distill(student, [entry], teacher=wide)


def loss_of(session):
    session.model(BATCH)
    session.teacher_forward(BATCH)
    return session.loss(batch={"indices": INDICES})


def train(session, steps, *, learned=()):
    optimizer = torch.optim.SGD([*session.model.parameters(), *learned], lr=0.01)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(session)
        loss.backward()
        optimizer.step()
        session.step()
        found.append(loss.item())
    return found


def test_a_bank_remembers_what_samples_had_before(student, wide):
    session = attach(student, wide)
    # The rows put out (1, 1) and (5, 5): mean squares of 13 from a bank of zeros.

    first, second = loss_of(session).item(), loss_of(session).item()

    assert first - second == pytest.approx(13, rel=1e-5)


def test_parameters_are_learned_by_name_and_buffers_are_not(student, wide):
    session = attach(student, wide)
    loss_of(session).backward()

    learned = session.learned()

    assert {name: tuple(leaf.shape) for name, leaf in learned.items()} == {
        "distillation.0._output_>0.loss.head.weight": (5, 2),
        "distillation.0._output_>0.loss.head.bias": (5,),
    }
    assert [id(leaf) for leaf in session.parameters()] == [id(leaf) for leaf in learned.values()]
    assert all(leaf.grad is not None for leaf in learned.values())


def test_the_session_moves_a_head_until_it_is_handed_over(student, wide):
    session = attach(student, wide)
    train(session, 1)
    (weight, bias) = session.parameters()
    before = weight.detach().clone()

    train(session, 1)
    assert torch.equal(weight, before)
    train(session, 1, learned=[weight, bias])

    assert not torch.equal(weight, before)


def test_every_link_of_every_target_has_an_object_of_its_own(student, wide):
    session = attach(student, wide, op_names=["0", "1"], link=["0", "1"])

    loss_of(session)

    assert sorted(session._engines.distillation.learning.states.modules) == [
        "0._output_>0",
        "0._output_>1",
        "1._output_>0",
        "1._output_>1",
    ]


def test_building_leaves_random_numbers_alone_and_depends_on_the_target_alone(
    student, wide, filled
):
    torch.manual_seed(0)
    session = attach(student, wide)
    expected = torch.get_rng_state()
    loss_of(session)
    assert torch.equal(torch.get_rng_state(), expected)

    torch.manual_seed(7)
    other = attach(filled(1.0), filled(3.0, width=5))
    loss_of(other)

    for one, two in zip(session.learned().values(), other.learned().values(), strict=True):
        assert torch.equal(one, two)


def test_state_goes_on_bit_for_bit(student, wide, filled, tmp_path):
    session = attach(student, wide, apply_method={"toy_memory": {"samples": 3}})
    train(session, 3)
    session.save(tmp_path / "session")
    twin = filled(1.0)
    twin.load_state_dict(copy.deepcopy(session.model.state_dict()))
    expected = train(session, 3)

    loaded = tersely.load_session(twin, tmp_path / "session", teacher=wide)
    names = list(loaded.learned())

    assert train(loaded, 3) == expected
    assert names == list(session.learned())
    for name, leaf in session.learned().items():
        assert torch.equal(loaded.learned()[name], leaf)
    one = session._engines.distillation.learning.states.modules["0._output_>0"]
    two = loaded._engines.distillation.learning.states.modules["0._output_>0"]
    assert torch.equal(one.bank, two.bank)
    assert two.calls == 6


def test_a_state_of_another_shape_is_refused_and_the_model_untouched(
    student, wide, filled, tmp_path, monkeypatch
):
    session = attach(student, wide)
    train(session, 1)
    session.save(tmp_path)
    twin = filled(1.0)
    build = Memory.build

    def build_another(self, student, teacher):
        build(self, student, teacher)
        self.bank = torch.zeros(5, 2)

    monkeypatch.setattr(Memory, "build", build_another)  # as another version of the plugin has it

    with pytest.raises(tersely.SessionFileError, match="'bank' is missing, unknown or of another"):
        tersely.load_session(twin, tmp_path, teacher=wide)
    assert type(twin[0]) is nn.Linear


def test_state_follows_the_student_to_its_device(student, wide):
    session = attach(student, wide)
    train(session, 1)
    session.model.to("meta")
    session.teacher.to("meta")

    session.model(BATCH.to("meta"))
    session.teacher_forward(BATCH.to("meta"))
    session.loss(batch={"indices": INDICES})

    (module,) = session._engines.distillation.learning.states.modules.values()
    assert {one.device.type for one in (*module.parameters(), *module.buffers())} == {"meta"}


def test_detach_gives_the_dense_model_back_and_drops_the_state(student, wide):
    dense = copy.deepcopy(student.state_dict())
    session = attach(student, wide)
    loss_of(session)

    session.detach()

    assert student.state_dict().keys() == dense.keys()
    assert session._engines.distillation.learning.states.modules == {}


def test_parameters_wait_for_the_first_batch(student, wide):
    session = attach(student, wide)

    with pytest.raises(tersely.SessionError, match="what toy_memory keeps of"):
        session.parameters()


def test_a_loss_that_cannot_be_made_is_named_with_the_shapes(student, wide):
    session = attach(student, wide, apply_method="toy_unbuilt")

    with pytest.raises(tersely.PluginError) as caught:
        loss_of(session)
    assert str(caught.value) == (
        "the loss toy_unbuilt could not be made for 0._output_>0, with options {} and the shapes "
        "[2, 2] and [2, 5]: RuntimeError: no such width"
    )


def test_a_state_that_is_no_tensor_is_refused_when_the_loss_is_made(student, wide, monkeypatch):
    monkeypatch.setattr(Memory, "get_extra_state", lambda self: {"epoch": 1}, raising=False)
    session = attach(student, wide)

    with pytest.raises(tersely.PluginError) as caught:
        loss_of(session)

    assert str(caught.value) == (
        "the loss toy_memory keeps a dict in _extra_state of its state (its get_extra_state "
        "returns it), but a session saves only tensors; keep it in buffers"
    )


def test_extra_state_that_is_a_tensor_is_saved_and_may_grow(student, wide, monkeypatch, tmp_path):
    def take(self, state):
        self.seen = state.tolist()

    monkeypatch.setattr(Memory, "seen", [], raising=False)
    monkeypatch.setattr(
        Memory, "get_extra_state", lambda self: torch.arange(int(self.calls)), raising=False
    )
    monkeypatch.setattr(Memory, "set_extra_state", take, raising=False)
    session = attach(student, wide)
    train(session, 3)
    session.save(tmp_path / "session")
    session.detach()

    again = tersely.load_session(student, tmp_path / "session", teacher=wide)

    (module,) = again._engines.distillation.learning.states.modules.values()
    assert module.seen == [0, 1, 2]


def test_extra_state_that_is_no_tensor_later_is_refused_by_save(
    student, wide, monkeypatch, tmp_path
):
    session = attach(student, wide)
    train(session, 1)
    monkeypatch.setattr(Memory, "get_extra_state", lambda self: {"epoch": 1}, raising=False)

    with pytest.raises(tersely.PluginError, match="keeps a dict in _extra_state"):
        session.save(tmp_path / "session")


def test_a_buffer_that_grows_is_refused_before_it_is_saved(student, wide, tmp_path):
    session = attach(student, wide)
    train(session, 1)
    (module,) = session._engines.distillation.learning.states.modules.values()
    module.bank = torch.zeros(5, 2)

    with pytest.raises(tersely.PluginError) as caught:
        session.save(tmp_path)

    assert str(caught.value) == (
        "the loss of 0._output_>0: bank has shape [5, 2], and after build() it has shape [4, 2]; "
        "make every parameter and buffer in build(), in the shape that it keeps"
    )


def test_a_buffer_that_comes_later_is_refused_in_the_step(student, wide):
    session = attach(student, wide)
    loss_of(session).backward()
    (module,) = session._engines.distillation.learning.states.modules.values()
    module.register_buffer("late", torch.zeros(3))

    with pytest.raises(
        tersely.PluginError, match=r"late has shape \[3\], .* it is not there; make"
    ):
        session.step()


def test_a_cached_teacher_serves_beside_a_loss_that_needs_none(student, wide, tmp_path):
    alone = {"op_names": ["1"], "apply_method": "toy_counting"}
    compared = {"op_names": ["0"], "apply_method": "toy_memory"}
    session = tersely.distill(student, [compared, alone], teacher=wide)
    expected = loss_of(session)
    session.cache_teacher([BATCH], tmp_path / "cache")

    session.use_teacher_cache(tmp_path / "cache")
    session.teacher_batch(0)
    session.model(BATCH)

    assert torch.isfinite(session.loss(batch={"indices": INDICES}))
    assert torch.isfinite(expected)
