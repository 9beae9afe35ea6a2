"""Algorithms that need training, in a user's loop: schedules, layers of every kind, and resuming."""

import itertools

import pytest
import torch
from messages.sessions import NOTHING_KEPT
from torch import nn
from torch.nn import functional

import tersely

TRAINED = {
    "taylor": {},
    "slim": {"regular_scale": 0.01},
    "movement": {"warmup_steps": 1, "cooldown_begin_step": 6},
}


class Net(nn.Module):
    """An embedding, a transposed and a grouped convolution, and a linear layer without bias."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 8)
        self.wider = nn.ConvTranspose1d(8, 4, 3, groups=2, bias=False)
        self.grouped = nn.Conv1d(4, 8, 3, groups=2, bias=False)
        self.head = nn.Linear(8, 4, bias=False)

    def forward(self, words):
        features = self.wider(self.table(words).transpose(1, 2)).relu()
        return self.head(self.grouped(features).relu().mean(2))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def batches():
    generator = torch.Generator().manual_seed(1)
    while True:
        words = torch.randint(0, 10, (16, 5), generator=generator)
        yield words, words.sum(1) % 4


def train(net, session, steps, data, parts=1):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for words, labels in itertools.islice(data, steps):
        optimizer.zero_grad()
        for some, wanted in zip(words.chunk(parts), labels.chunk(parts), strict=True):
            session.total_loss(functional.cross_entropy(net(some), wanted) / parts).backward()
        optimizer.step()
        session.step()


def stage_of(algorithm, schedule=None, **entry):
    entry = {"op_names": ["table", "wider", "grouped", "head"], "sparse_ratio": 0.5, **entry}
    stage = {"algorithm": algorithm, "options": TRAINED[algorithm], "config_list": [entry]}
    return {"pruning": stage if schedule is None else {**stage, "schedule": schedule}}


def masked_channels(session, module, dim):
    """Which indices of a dimension are masked whole; what is left must be kept whole."""
    mask = session.masks()[module]["weight"].movedim(dim, 0).flatten(1)
    assert torch.equal(mask.all(1), mask.any(1))
    return int((~mask.any(1)).sum())


@pytest.mark.parametrize("algorithm", TRAINED)
def test_output_channels_of_every_layer_are_decided_on(algorithm, net):
    session = tersely.attach(net, stage_of(algorithm))
    train(net, session, 8, batches())
    session.compress()
    # Of 8 columns of the table, 2 channels in each of two groups, 8 filters and 4 rows.
    assert masked_channels(session, "table", 1) == 4
    assert masked_channels(session, "wider", 1) == 1
    assert masked_channels(session, "grouped", 0) == 4
    assert masked_channels(session, "head", 0) == 2


@pytest.mark.parametrize("algorithm", ["taylor", "slim"])
def test_sparsity_grows_along_a_schedule_without_a_call_of_compress(algorithm, net):
    agp = {"name": "agp", "begin": 1, "every": 2, "times": 2}
    session = tersely.attach(net, stage_of(algorithm, agp, op_names=["grouped"]))
    grown = []
    for batch in itertools.islice(batches(), 7):
        train(net, session, 1, iter([batch]))
        grown.append(session.sparsity().get("grouped", {}).get("weight", 0.0))
    # 7/8 of a half of 8 filters is 3.5, so 3 after the first update.
    assert grown == [0.0, 0.0, 0.375, 0.375, 0.5, 0.5, 0.5]


def test_gradients_of_a_step_add_up_before_taylor_squares_them(net, monkeypatch):
    seen = []
    taylor = tersely.registry().pruners["taylor"]
    ask = taylor.importance
    monkeypatch.setattr(
        taylor, "importance", lambda self, one: seen.append(ask(self, one)) or seen[-1]
    )
    for parts in (1, 2):
        torch.manual_seed(0)
        fresh = Net()
        session = tersely.attach(fresh, stage_of("taylor", op_names=["head"]))
        train(fresh, session, 3, batches(), parts)
        session.compress()
    torch.testing.assert_close(seen[0], seen[1])


def test_taylor_ranks_by_the_steps_since_the_last_masks(net):
    session = tersely.attach(net, stage_of("taylor"))
    train(net, session, 2, batches())
    session.compress()
    with pytest.raises(tersely.SessionError, match="seen none"):
        session.compress()
    train(net, session, 1, batches())
    session.compress()


def test_the_loss_is_the_penalty_of_slim_alone(net):
    session = tersely.attach(net, stage_of("slim", op_names=["grouped", "head"]))
    # 8 and 4 factors of 1 have the mean 6.
    assert session.loss().item() == pytest.approx(0.01 * 6)
    assert session.total_loss(torch.tensor(2.0)).item() == pytest.approx(2.06)


def test_slim_leaves_its_factors_in_the_finished_weights(net):
    session = tersely.attach(net, stage_of("slim"))
    train(net, session, 3, batches())
    session.compress()
    words, _ = next(batches())
    expected = net(words)
    finished = session.finalize()
    assert [name for name, _ in finished.named_buffers()] == []
    torch.testing.assert_close(finished(words), expected)


@pytest.mark.parametrize("algorithm", ["slim", "movement"])
def test_what_is_learned_is_not_among_the_parameters(algorithm, net):
    names = [name for name, _ in net.named_parameters()]
    session = tersely.attach(net, stage_of(algorithm))
    assert [name for name, _ in net.named_parameters()] == names
    assert len(list(session.parameters())) == 4


@pytest.mark.filterwarnings(f"ignore:.*{NOTHING_KEPT}")
def test_movement_takes_a_ratio_for_one_target_and_a_threshold_for_another(net):
    entries = [
        {"op_names": ["head"], "sparse_ratio": 0.5},
        {"op_names": ["grouped"], "sparse_threshold": 0.5},
    ]
    stage = {"algorithm": "movement", "options": TRAINED["movement"], "config_list": entries}
    session = tersely.attach(net, {"pruning": stage})
    train(net, session, 8, batches())
    # Gates start at one half, and the penalty is all due: half of each is added to the loss.
    assert 0.4 < session.loss().item() < 0.5
    assert session.sparsity()["head"]["weight"] == 0.5
    assert session.sparsity()["grouped"]["weight"] > 0.5


@pytest.mark.parametrize(
    ("algorithm", "schedule"),
    [
        ("taylor", {"name": "agp", "every": 2, "times": 4}),
        ("slim", {"name": "linear", "every": 2, "times": 4}),
        ("movement", None),
    ],
)
def test_a_session_resumed_between_two_updates_goes_on_bit_for_bit(
    algorithm, schedule, net, tmp_path
):
    session = tersely.attach(net, stage_of(algorithm, schedule))
    data = list(itertools.islice(batches(), 8))
    train(net, session, 3, iter(data[:3]))
    session.save(tmp_path)
    again = Net()
    with torch.no_grad():
        for parameter, value in zip(again.parameters(), net.parameters(), strict=True):
            parameter.copy_(value)
    resumed = tersely.load_session(again, tmp_path)
    train(net, session, 5, iter(data[3:]))
    train(again, resumed, 5, iter(data[3:]))
    for parameter, value in zip(again.parameters(), net.parameters(), strict=True):
        assert torch.equal(parameter, value)
    for module, targets in session.masks().items():
        assert torch.equal(targets["weight"], resumed.masks()[module]["weight"])


@pytest.mark.parametrize(("algorithm", "first"), [("slim", 1.0), ("movement", 0.0)])
def test_a_model_that_is_moved_after_it_was_attached_goes_on_learning(algorithm, first, net):
    session = tersely.attach(net, stage_of(algorithm, op_names=["head"]))
    net.double()
    train(net, session, 3, batches())
    learned = next(one for one in net.head.buffers() if one.requires_grad)
    assert learned.dtype == torch.float64
    assert learned.is_leaf
    assert bool((learned != first).all())


def test_movement_takes_no_schedule(net):
    schedule = {"name": "agp", "every": 1, "times": 2}
    with pytest.raises(tersely.PlanError) as caught:
        tersely.attach(net, stage_of("movement", schedule))
    assert str(caught.value) == (
        "pruning.schedule: movement grows its sparsity as its options say; leave the schedule "
        "'agp' out"
    )


@pytest.mark.parametrize("algorithm", ["slim", "movement"])
def test_what_learns_through_masks_does_not_add_them(algorithm, net):
    with pytest.raises(tersely.PlanError) as caught:
        tersely.attach(net, stage_of(algorithm, op_names=["head"], apply_method="add"))
    assert str(caught.value) == (
        f"pruning.config_list[0]: head.weight: {algorithm} learns through masks that multiply, and "
        f"apply_method is add; write mul"
    )
