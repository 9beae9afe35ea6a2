"""The teacher's targets on disk."""

import json

import pytest
import torch

import tersely
from tersely.storage import teacher_cache as cache

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
    session = distilled(student=filled(1.0))
    session.use_teacher_cache(cached)

    with pytest.raises(tersely.SessionFileError, match=r"targets-00000\.safetensors is missing or"):
        session.teacher_batch(0)


def test_something_else_is_no_cache(distilled, tmp_path):
    (tmp_path / "index.json").write_text(json.dumps({"format": "other"}))

    with pytest.raises(tersely.SessionFileError, match="is no teacher cache of version 1"):
        distilled().use_teacher_cache(tmp_path)


def test_a_batch_without_a_cache_says_what_to_call(distilled):
    with pytest.raises(tersely.SessionError, match=r"call session\.use_teacher_cache"):
        distilled().teacher_batch(0)


def test_a_session_without_a_teacher_has_nothing_to_cache(distilled, tmp_path):
    session = distilled(teacher=None)

    with pytest.raises(tersely.SessionError, match="the session has no teacher"):
        session.cache_teacher(BATCHES, tmp_path)
