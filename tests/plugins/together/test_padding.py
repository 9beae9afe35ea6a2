"""Padded positions of a batch are no data for anything that observes (rule B8.5)."""

import copy

import pytest
import torch
from torch import nn

import tersely
from tersely.arithmetic.positions import data_positions
from tersely.engine.observation.padding import mask_of

LENGTHS = (5, 9, 7, 12)
FEATURES = 8


class Tokens(nn.Module):
    """Embeds tokens and mixes nothing between positions, so padding changes no other position."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, FEATURES)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(FEATURES, 3)

    def forward(self, input_ids, attention_mask=None):
        hidden = self.embed(input_ids)
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.act = nn.Linear(FEATURES, 16), nn.ReLU()
        self.down = nn.Linear(16, FEATURES)

    def forward(self, hidden):
        return hidden + self.down(self.act(self.up(hidden)))


def texts(pad_to=None):
    torch.manual_seed(1)
    batches = []
    for length in LENGTHS:
        ids = torch.randint(1, 50, (1, length))
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if pad_to is not None:
            missing = (0, pad_to - length)
            batch = {key: nn.functional.pad(value, missing) for key, value in batch.items()}
        batches.append(batch)
    return batches


def padded_in_one_batch():
    rows = texts(pad_to=20)
    return [{key: torch.cat([row[key] for row in rows]) for key in rows[0]}]


def build():
    torch.manual_seed(0)
    return Tokens().eval()


def pruned(batches, algorithm, **options):
    model = build()
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}
    session = tersely.prune(model, [entry], algorithm=algorithm, options=options, data=batches)
    return session.masks(), {name: one.clone() for name, one in model.state_dict().items()}


def quantized(batches, algorithm, **options):
    model = build()
    entry = {
        "op_types": ["Linear"],
        "target_names": ["_input_", "weight", "_output_"],
        "quant_dtype": "int8",
        "target_settings": {"_input_": {"quant_scheme": "affine"}},
    }
    session = tersely.quantize(model, [entry], algorithm=algorithm, options=options, data=batches)
    return session.qparams(), model(**texts()[0])


@pytest.mark.parametrize("padded", [texts(pad_to=20), padded_in_one_batch()], ids=["one", "many"])
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("wanda", {}),
        ("wanda", {"sequential": False}),
        ("sparsegpt", {}),
        ("sparsegpt", {"sequential": False}),
        ("apoz", {}),
        ("mean_activation", {}),
    ],
)
def test_a_padded_batch_gives_the_masks_of_the_same_texts_unpadded(algorithm, options, padded):
    masks, _ = pruned(texts(), algorithm, **options)
    found, _ = pruned(padded, algorithm, **options)
    for name, targets in masks.items():
        assert torch.equal(found[name]["weight"], targets["weight"]), name


@pytest.mark.parametrize("padded", [texts(pad_to=20), padded_in_one_batch()], ids=["one", "many"])
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("ptq", {}),
        ("ptq", {"observer": "histogram"}),
        ("gptq", {}),
        ("awq", {}),
        ("smoothquant", {}),
        ("adaround", {"iterations": 5}),
    ],
)
def test_a_padded_batch_gives_the_scales_of_the_same_texts_unpadded(algorithm, options, padded):
    expected, outputs = quantized(texts(), algorithm, **options)
    found, others = quantized(padded, algorithm, **options)
    for name, targets in expected.items():
        for target, qparams in targets.items():
            torch.testing.assert_close(found[name][target].scale, qparams.scale, msg=name + target)
    torch.testing.assert_close(others, outputs)


def test_padding_differs_where_it_is_counted():
    counted, _ = quantized(texts(pad_to=200), "ptq", observer="histogram")
    model = build()
    entry = {"op_types": ["Linear"], "target_names": ["_input_"], "quant_dtype": "int8"}
    session = tersely.attach(model, {"quantization": {"algorithm": "ptq", "config_list": [entry]}})
    session.calibrate(texts(pad_to=200), mask=lambda batch: None)
    session.compress()
    scales = [session.qparams()[name]["_input_"].scale for name in ("head", "blocks.1.up")]
    assert any(
        scale != counted[name]["_input_"].scale
        for scale, name in zip(scales, ("head", "blocks.1.up"), strict=True)
    )


def attached(model, algorithm="l1_norm", **entry):
    entry = {"sparse_ratio": 0.5, **entry}
    return tersely.attach(model, {"pruning": {"algorithm": algorithm, "config_list": [entry]}})


def means(session):
    (statistic,) = session._engines.pruning.statistics.values()
    return statistic.mean().tolist()


PER_CHANNEL = {"op_names": ["0"], "target_names": ["_output_"], "granularity": "per_channel"}


def calibrated(values, mask, algorithm="l1_norm", **entry):
    session = attached(nn.Sequential(nn.Identity()), algorithm, **{**PER_CHANNEL, **entry})
    session.calibrate([values], mask=lambda batch: mask)
    return session


def test_a_mean_leaves_padded_rows_out():
    values = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 9.0], [100.0, 100.0]]])
    assert means(calibrated(values, torch.tensor([[1, 1], [1, 0]]))) == [3.0, 5.0]


def test_rows_of_all_texts_in_one_dimension_are_told_by_their_number():
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 9.0], [100.0, 100.0]])
    assert means(calibrated(values, torch.tensor([[1, 1], [1, 0]]))) == [3.0, 5.0]


def test_heads_may_stand_before_positions():
    values = torch.tensor([[[[1.0], [3.0], [90.0]], [[5.0], [7.0], [90.0]]]])
    assert values.shape == (1, 2, 3, 1)
    assert means(calibrated(values, torch.tensor([[1, 1, 0]]))) == [4.0]


def test_the_mean_of_an_element_counts_the_samples_that_have_it():
    values = torch.tensor([[[1.0], [3.0]], [[5.0], [100.0]]])
    session = calibrated(values, torch.tensor([[1, 1], [1, 0]]), "level", granularity="default")
    assert means(session) == [[3.0], [3.0]]


def test_what_is_missing_is_saved(tmp_path):
    values = torch.tensor([[[1.0], [3.0]], [[5.0], [100.0]]])
    session = calibrated(values, torch.tensor([[1, 1], [1, 0]]), "level", granularity="default")
    session.save(tmp_path / "session")
    session.detach()
    again = tersely.load_session(session.model, tmp_path / "session")
    assert means(again) == [[3.0], [3.0]]


def test_a_convolution_over_positions_sees_each_text_alone():
    torch.manual_seed(0)
    values = torch.randn(2, 4, 6)
    source = nn.Conv1d(4, 4, 3).state_dict()

    def masks(batches, mask):
        model = nn.Sequential(nn.Conv1d(4, 4, 3))
        model[0].load_state_dict(source)
        session = attached(
            model, "wanda", op_types=["Conv1d"], target_names=["weight"], sparse_ratio=0.5
        )
        session.calibrate(batches, mask=mask)
        session.compress()
        return session.masks()["0"]["weight"]

    padded = values.clone()
    padded[1, :, 4:] = 100
    is_data = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    alone = masks([values[:1], values[1:, :, :4]], None)
    assert torch.equal(masks([padded], lambda batch: is_data), alone)


def test_a_decoder_is_not_described_by_the_mask_of_its_encoder():
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.pass_on = nn.Identity()

        def forward(self, attention_mask, decoder_inputs):
            return self.pass_on(decoder_inputs)

    session = attached(Decoder(), **{**PER_CHANNEL, "op_names": ["pass_on"]})
    batch = {
        "attention_mask": torch.tensor([[1, 0]]),
        "decoder_inputs": torch.tensor([[[1.0], [3.0]]]),
    }
    session.calibrate([batch])
    assert means(session) == [2.0]


def test_a_key_that_is_not_there_is_an_error_that_lists_the_keys():
    session = attached(build(), "apoz", op_types=["Linear"], target_names=["weight"])
    with pytest.raises(
        tersely.CalibrationError, match=r"'padding' is not a key .* input_ids, attent"
    ):
        session.calibrate(texts(), mask="padding")


IS_DATA = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool()
KEYS = IS_DATA[:, None, None, :]
CAUSAL = KEYS & torch.ones(4, 4).tril().bool()
DISTANCES = (torch.arange(4)[None] - torch.arange(4)[:, None]).abs() * -100.0


def added(mask, value=-3e38):
    return torch.zeros(mask.shape).masked_fill(~mask, value)


@pytest.mark.parametrize(
    "mask",
    [
        KEYS,
        KEYS.long(),
        KEYS.float(),
        KEYS.expand(2, 3, 4, 4),
        CAUSAL,
        CAUSAL[:, 0],
        added(KEYS),
        added(CAUSAL, -torch.inf),
        added(CAUSAL.expand(2, 3, 4, 4), -10000.0),
        added(CAUSAL) + DISTANCES,
        added(IS_DATA, -10000.0),
    ],
)
def test_a_mask_as_attention_takes_it_marks_padding_that_nothing_attends_to(mask):
    assert torch.equal(data_positions(mask), IS_DATA)
    assert torch.equal(mask_of({"attention_mask": mask}, None), IS_DATA)


@pytest.mark.parametrize(
    "mask",
    [torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 1, 4), added(torch.ones(2, 1, 4, 4).tril().bool())],
)
def test_a_mask_as_attention_takes_it_may_mark_no_padding(mask):
    assert mask_of({"attention_mask": mask}, None) is None


def test_ranges_that_follow_training_read_a_mask_as_attention_takes_it():
    batches = [
        {**one, "attention_mask": added(one["attention_mask"].bool()[:, None, None])}
        for one in texts(pad_to=20)
    ]
    assert_alike(followed(batches), followed(texts()))


def test_a_mask_of_another_shape_is_an_error():
    session = attached(build(), "apoz", op_types=["Linear"], target_names=["weight"])
    with pytest.raises(tersely.CalibrationError, match=r"\[batch, positions\].*found shape \[5\]"):
        session.calibrate(texts(), mask=lambda batch: batch["attention_mask"][0])


TRAINED = {
    "op_types": ["Linear", "ReLU"],
    "target_names": ["_input_", "_output_"],
    "quant_dtype": "int8",
    "quant_scheme": "affine",
}


def followed(batches, call=None, model=None, **keys):
    """The scales after one step of `qat` for each batch."""
    model = build() if model is None else model
    stage = {"algorithm": "qat", "config_list": [TRAINED | keys]}
    session = tersely.attach(model, {"quantization": stage})
    model.train()
    for batch in batches:
        (call or (lambda model, batch: model(**batch)))(model, batch)
        session.step()
    return session.qparams()


def assert_alike(found, expected):
    assert found.keys() == expected.keys()
    for module, targets in expected.items():
        for target, qparams in targets.items():
            other = found[module][target]
            assert torch.allclose(other.scale, qparams.scale, rtol=1e-6), (module, target)
            assert torch.equal(other.zero_point, qparams.zero_point), (module, target)


def by_position(model, batch):
    return model(batch["input_ids"], batch["attention_mask"])


@pytest.mark.parametrize("call", [None, by_position])
@pytest.mark.parametrize("granularity", ["default", "per_channel"])
def test_ranges_that_follow_training_do_not_follow_padding(call, granularity):
    expected = followed(texts(), granularity=granularity)
    assert_alike(followed(texts(pad_to=20), call, granularity=granularity), expected)


def test_without_its_mask_padding_moves_the_ranges_of_qat():
    def bare(model, batch):
        return model(batch["input_ids"])

    expected, found = followed(texts()), followed(texts(pad_to=20), bare)
    assert found["head"]["_input_"].scale != expected["head"]["_input_"].scale


def test_texts_of_several_lengths_in_a_batch_move_ranges_by_their_tokens_alone():
    alone = {"input_ids": torch.cat([one["input_ids"] for one in texts()], dim=1)}
    assert_alike(followed(padded_in_one_batch()), followed([alone]))


def test_a_batch_of_nothing_but_padding_leaves_the_ranges_where_they_are():
    batch = texts()[1]
    nothing = {**batch, "attention_mask": torch.zeros_like(batch["input_ids"])}
    assert_alike(followed([batch, nothing]), followed([batch]))


def test_values_that_are_not_finite_count_only_where_there_is_data():
    class Poisoned(Tokens):
        def forward(self, input_ids, attention_mask=None):
            hidden = self.embed(input_ids)
            return self.head(torch.where(input_ids[..., None] == 0, torch.nan, hidden))

    def run(batches):
        torch.manual_seed(0)
        return followed(batches, model=Poisoned(), op_types=None, op_names=["head"])

    assert_alike(run(texts(pad_to=20)), run(texts()))


def test_the_mask_of_one_call_says_nothing_of_the_next_and_is_not_copied():
    model = build()
    stage = {"algorithm": "qat", "config_list": [TRAINED]}
    session = tersely.attach(model, {"quantization": stage})
    model.train()
    padded, full = texts(pad_to=20)[0], torch.randint(1, 50, (1, 20))
    model(**padded)
    session.step()
    model(full)
    session.step()
    other = build()
    again = tersely.attach(other, {"quantization": stage})
    other.train()
    other(**padded)
    again.step()
    other(full, torch.ones_like(full))
    again.step()
    assert_alike(session.qparams(), again.qparams())
    copied = copy.deepcopy(model)
    copied(**padded)
    assert type(session.detach()) is Tokens
    assert type(copied).__name__ == "Tokens"


def test_the_mask_of_a_call_that_fails_says_nothing_of_what_runs_afterwards():
    def broken(*args):
        raise ArithmeticError("in the middle of a call")

    def run(is_failing):
        model = build()
        session = tersely.attach(
            model, {"quantization": {"algorithm": "qat", "config_list": [TRAINED]}}
        )
        model.train()
        model(**texts(pad_to=20)[0])
        session.step()
        if is_failing:
            hook = model.head.register_forward_hook(broken)
            with pytest.raises(ArithmeticError):
                model(**texts(pad_to=20)[0])
            hook.remove()
            session.step()
        model.head(torch.linspace(-9, 9, 160).reshape(1, 20, 8))
        session.step()
        return session.qparams()["head"]["_input_"]

    assert run(is_failing=True).scale == pytest.approx(run(is_failing=False).scale)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_model_whose_ranges_follow_data_alone_compiles_as_one_graph():
    stage = {"algorithm": "qat", "config_list": [TRAINED]}
    expected = followed(texts(pad_to=20))
    model = build()
    session = tersely.attach(model, {"quantization": stage})
    model.train()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for batch in texts(pad_to=20):
        compiled(**batch)
        session.step()
    assert_alike(session.qparams(), expected)


def test_a_model_that_takes_a_mask_of_a_decoder_observes_everything():
    class Decoder(Tokens):
        def forward(self, input_ids, attention_mask=None, decoder_input_ids=None):
            return super().forward(decoder_input_ids)

    def run(batch):
        torch.manual_seed(0)
        return followed([batch], model=Decoder())

    padded = texts(pad_to=20)[0]
    ids = padded["input_ids"]
    ones = torch.ones_like(ids)
    expected = run({"input_ids": ids, "attention_mask": ones, "decoder_input_ids": ids})
    assert_alike(run({**padded, "decoder_input_ids": ids}), expected)
