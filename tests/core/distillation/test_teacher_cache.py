"""The teacher's targets on disk."""

import json

import pytest
import torch
from messages.sessions import NO_TEACHER
from safetensors.torch import load_file, save_file

import tersely
from tersely.storage import teacher_cache as cache
from tersely.storage.json_file import with_digest
from tersely.storage.seal import seal_of

BATCHES = [torch.full((1, 2), float(value)) for value in (1, 2, 3)]


@pytest.fixture
def cached(distilled, tmp_path):
    session = distilled()
    session.cache_teacher(BATCHES, tmp_path / "cache")
    return tmp_path / "cache"


def test_cached_targets_stand_for_the_teacher(distilled, cached, teacher, filled):
    session = distilled(student=filled(1.0), teacher=None)
    session.use_teacher_cache(cached)

    losses = []
    for number, batch in enumerate(BATCHES):
        session.model(batch)
        session.teacher_batch(number)
        losses.append(session.loss().item())

    # 2 against 6, 4 against 12, 6 against 18
    assert losses == [16, 64, 144]


def test_targets_are_spread_over_files(distilled, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SHARD_BYTES", 16)
    session = distilled()

    session.cache_teacher(BATCHES, tmp_path)
    opened = session.use_teacher_cache(tmp_path)

    # two floats of four bytes for each batch
    assert [len(found) for found in opened.shards.values()] == [2, 1]
    assert opened.batches == 3
    session.model(BATCHES[2])
    session.teacher_batch(2)
    assert session.loss().item() == 144


def test_a_batch_that_was_not_cached_is_refused(distilled, cached, filled):
    session = distilled(student=filled(1.0))
    session.use_teacher_cache(cached)

    with pytest.raises(tersely.SessionFileError, match="holds the batches 0 to 2, not 3"):
        session.teacher_batch(3)


def test_another_config_is_refused(distilled, cached, filled):
    session = distilled(student=filled(1.0), op_names=["1"])

    with pytest.raises(tersely.SessionFileError, match="cached with another distillation config"):
        session.use_teacher_cache(cached)


def test_another_teacher_is_refused(distilled, cached, filled):
    session = distilled(student=filled(1.0), teacher=filled(4.0))

    with pytest.raises(tersely.SessionFileError, match="cached with another teacher"):
        session.use_teacher_cache(cached)


def test_a_broken_run_leaves_no_cache(distilled, tmp_path):
    session = distilled()

    def batches():
        yield BATCHES[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.cache_teacher(batches(), tmp_path)
    with pytest.raises(tersely.SessionFileError, match="holds no teacher cache"):
        session.use_teacher_cache(tmp_path)


def test_a_damaged_file_is_named(distilled, cached, filled):
    (cached / "targets-00000.safetensors").write_bytes(b"nothing")

    with pytest.raises(
        tersely.SessionFileError, match=r"00000\.safetensors has 7 bytes, expected "
    ):
        distilled(student=filled(1.0)).use_teacher_cache(cached)


def test_a_missing_file_is_named(distilled, cached, filled):
    (cached / "targets-00000.safetensors").unlink()

    with pytest.raises(
        tersely.SessionFileError, match=r"00000\.safetensors is missing; cache again"
    ):
        distilled(student=filled(1.0)).use_teacher_cache(cached)


@pytest.mark.parametrize("name", ["targets-00000.safetensors", "index.json"])
def test_any_flipped_byte_of_a_cache_is_an_error_that_names_the_file(
    distilled, cached, filled, name
):
    place = cached / name
    whole = place.read_bytes()
    session = distilled(student=filled(1.0), teacher=None)

    for index in range(len(whole)):
        place.write_bytes(whole[:index] + bytes([whole[index] ^ 0x20]) + whole[index + 1 :])
        with pytest.raises(tersely.SessionFileError, match=str(cached)):  # noqa: PT012  # one act
            session.use_teacher_cache(cached)
            session.teacher_batch(0)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"../x.safetensors": "targets-00000.safetensors"}, "does not match"),
        ({"/etc/passwd": "targets-00000.safetensors"}, "does not match"),
        ({"batches": [1, 3]}, r"batches is \[1, 3\], expected to begin with 0"),
        ({"batches": [0, 0]}, r"batches is \[0, 0\]"),
        ({"batches": "all"}, "'all' is not of type 'array'"),
        ({"batches": [0, 1e308]}, "is not of type 'integer'"),
        ({"bytes": None}, "bytes: None is not of type 'integer'"),
    ],
)
def test_an_index_that_was_made_to_fit_is_still_checked(
    distilled, cached, filled, change, complaint
):
    index = json.loads((cached / "index.json").read_text())
    del index["sha256"]
    for key, value in change.items():
        if key in ("batches", "bytes"):
            index["shards"]["targets-00000.safetensors"][key] = value
        else:
            index["shards"][key] = index["shards"].pop(value)
    (cached / "index.json").write_text(json.dumps(with_digest(index)))

    with pytest.raises(tersely.SessionFileError, match=complaint):
        distilled(student=filled(1.0), teacher=None).use_teacher_cache(cached)


def test_a_target_that_is_missing_from_a_file_made_to_fit_is_named(distilled, cached, filled):
    place = cached / "targets-00000.safetensors"
    tensors = {f"{name}x": tensor for name, tensor in load_file(place).items()}
    save_file(tensors, place)
    index = json.loads((cached / "index.json").read_text())
    del index["sha256"]
    index["shards"][place.name].update(seal_of(place))
    (cached / "index.json").write_text(json.dumps(with_digest(index)))
    session = distilled(student=filled(1.0), teacher=None)
    session.use_teacher_cache(cached)

    with pytest.raises(tersely.SessionFileError, match=r"'0\._output_>0' is missing"):
        session.teacher_batch(0)


def test_the_files_of_a_longer_cache_are_removed(distilled, cached, filled, monkeypatch):
    monkeypatch.setattr(cache, "SHARD_BYTES", 1)
    distilled(student=filled(1.0)).cache_teacher(BATCHES, cached)
    monkeypatch.undo()

    distilled(student=filled(1.0)).cache_teacher(BATCHES, cached)

    assert [place.name for place in sorted(cached.iterdir())] == [
        "index.json",
        "targets-00000.safetensors",
    ]


def test_something_else_is_no_cache(distilled, tmp_path):
    (tmp_path / "index.json").write_text(json.dumps({"format": "other"}))

    with pytest.raises(tersely.SessionFileError, match="is not a teacher cache of version 1"):
        distilled().use_teacher_cache(tmp_path)


def test_a_batch_without_a_cache_says_what_to_call(distilled):
    with pytest.raises(tersely.SessionError, match=r"call session\.use_teacher_cache"):
        distilled().teacher_batch(0)


def test_a_session_without_a_teacher_has_nothing_to_cache(distilled, tmp_path):
    session = distilled(teacher=None)

    with pytest.raises(tersely.SessionError, match=NO_TEACHER):
        session.cache_teacher(BATCHES, tmp_path)
