"""The database of a search: what was changed in it is refused, never taken over."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tersely.errors import SessionFileError

pytest.importorskip("optuna")

from tersely.searching.trials import claims
from tersely.searching.trials.study import TrialStore, Tried


def opened(place):
    return TrialStore(
        f"sqlite:///{place}", names=("a", "b"), levels=(2, 3), subject={"model": "1f"}, seed=0
    )


@pytest.fixture
def place(tmp_path):
    store = opened(tmp_path / "study.db")
    store.add(Tried(setting=(1, 3), kind="step", value=0.5, drop=1.5, cost=0.25), score=0.25)
    store.add_row("a: 1", {"drop": 0.5, "cost": 0.75})
    return tmp_path / "study.db"


def changed(place, statement):
    with sqlite3.connect(place) as database:
        assert database.execute(statement).rowcount
    database.close()
    return opened(place)


def test_it_gives_back_what_was_stored(place):
    store = opened(place)
    (tried,) = store.tried()
    assert (tried.setting, tried.drop, tried.cost) == ((1, 3), 1.5, 0.25)
    assert store.row("a: 1") == {"drop": 0.5, "cost": 0.75}
    assert store.rows("a: ") == {"1": {"drop": 0.5, "cost": 0.75}}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trial_user_attributes SET value_json = '0.125' WHERE key = 'cost'",
        "UPDATE trial_params SET param_value = 2 WHERE param_name = 'b'",
        "UPDATE trial_values SET value = 0.125",
        "DELETE FROM trial_user_attributes WHERE key = 'sha256'",
        "UPDATE trial_params SET distribution_json = replace(distribution_json, '3', '4')",
    ],
)
def test_a_trial_that_was_changed_is_refused(place, statement):
    store = changed(place, statement)
    with pytest.raises(SessionFileError, match=r"study\.db cannot be read .*remove this one$"):
        store.tried()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE study_user_attributes SET value_json = replace(value_json, '0.75', '0.25')",
        "UPDATE study_user_attributes SET key = 'row: b: 1' WHERE key = 'row: a: 1'",
        "UPDATE study_user_attributes SET value_json = '[]' WHERE key = 'row: a: 1'",
    ],
)
def test_a_row_that_was_changed_is_refused(place, statement):
    store = changed(place, statement)
    with pytest.raises(SessionFileError, match=r"study\.db cannot be read .*remove this one$"):
        store.rows("")


@pytest.mark.parametrize("emptied", [["trials"], ["study_user_attributes"], []])
def test_a_search_that_does_not_say_what_it_is_of_is_refused(place, emptied):
    with sqlite3.connect(place) as database:
        for table in emptied:
            database.execute(f"DELETE FROM {table} WHERE true")
        database.execute("DELETE FROM study_user_attributes WHERE key = 'subject'")
    database.close()
    with pytest.raises(
        SessionFileError, match=r"study\.db does not state what its trials .*remove this one$"
    ):
        opened(place)


def test_what_it_is_of_in_another_form_is_refused(place):
    statement = "UPDATE study_user_attributes SET value_json = '1' WHERE key = 'subject'"
    with pytest.raises(SessionFileError, match=r"damaged where it states what it belongs to"):
        changed(place, statement)


def test_what_another_process_says_at_the_same_time_is_not_taken_over(tmp_path, monkeypatch):
    first = TrialStore._set

    def at_the_same_time(store, key, value):
        first(store, key, value)
        first(store, key, {"model": "another"})

    monkeypatch.setattr(TrialStore, "_set", at_the_same_time)
    with pytest.raises(SessionFileError, match="something else: model changed"):
        opened(tmp_path / "study.db")


def test_tables_that_another_process_is_making_are_waited_for(tmp_path, monkeypatch):
    import optuna

    create, failures = optuna.create_study, iter(range(3))

    def colliding(**given):
        if next(failures, None) is not None:
            raise OSError("table studies already exists")
        return create(**given)

    monkeypatch.setattr(optuna, "create_study", colliding)
    monkeypatch.setattr("tersely.searching.trials.study._PAUSES", (0.0, 0.0, 0.0))

    assert opened(tmp_path / "study.db").tried() == ()


def test_a_file_that_is_no_database_is_refused(place):
    place.write_bytes(b"not a database, and long enough to be read as one" * 20)
    with pytest.raises(SessionFileError, match="file is not a database"):
        opened(place)


@pytest.fixture
def two(tmp_path):
    """Two processes' views of one search, without trials."""
    return opened(tmp_path / "study.db"), opened(tmp_path / "study.db")


def test_of_two_that_claim_a_setting_the_first_has_it(two):
    one, other = two
    with one.claim((1, 1), most=9) as is_first, other.claim((1, 1), most=9) as is_second:
        assert (is_first, is_second) == (True, False)
        assert [claim.setting for claim in other.claimed()] == [(1, 1)]


def test_one_that_claims_while_another_looks_does_not_take_what_was_claimed_before(two):
    one, other = two
    with other.claim((1, 1), most=9) as is_first, one.claim((1, 1), most=9) as is_second:
        assert (is_first, is_second) == (True, False)


def test_what_is_tried_is_not_claimed_again(two):
    one, other = two
    one.add(Tried(setting=(1, 3), kind="step", value=0.5, drop=1.5, cost=0.25), score=0.25)
    with other.claim((1, 3), most=9) as is_ours:
        assert not is_ours


def test_no_more_is_claimed_than_there_are_to_be_trials(two):
    one, other = two
    one.add(Tried(setting=(1, 3), kind="step", value=0.5, drop=1.5, cost=0.25), score=0.25)
    with one.claim((1, 1), most=2) as is_first, other.claim((1, 2), most=2) as is_second:
        assert (is_first, is_second) == (True, False)


def test_a_claim_is_given_back_after_an_error(two):
    one, other = two
    with pytest.raises(KeyboardInterrupt), one.claim((1, 1), most=9):
        raise KeyboardInterrupt
    assert other.claimed() == ()
    with other.claim((1, 1), most=1) as is_ours:
        assert is_ours


@contextlib.contextmanager
def claimed_by(monkeypatch, store, **process):
    """A claim that looks like one of another process."""
    theirs = {**claims._ourselves(), **process}
    monkeypatch.setattr(claims, "_ourselves", lambda: theirs)
    with store.claim((1, 1), most=9):
        monkeypatch.undo()
        yield


@pytest.fixture
def ended():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_process_claimed_that_has_ended_is_free(two, ended, monkeypatch):
    one, other = two
    with claimed_by(monkeypatch, one, pid=ended), other.claim((1, 1), most=1) as is_ours:
        assert is_ours
        assert [claim.setting for claim in other.claimed()] == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs the start of a process")
def test_a_number_that_another_process_has_now_keeps_no_claim_alive(two, monkeypatch):
    one, other = two
    with claimed_by(monkeypatch, one, pid=os.getppid(), start="0"):
        assert other.claimed() == ()


def test_a_claim_of_another_machine_counts_though_it_cannot_be_seen_whether_it_lives(
    two, ended, monkeypatch
):
    one, other = two
    with claimed_by(monkeypatch, one, pid=ended, host="elsewhere"):
        (claim,) = other.claimed()
        assert (str(claim), claim.is_seen) == (f"process {ended} on elsewhere", False)
        with other.claim((1, 1), most=9) as is_ours:
            assert not is_ours


def test_a_claim_that_was_changed_is_refused(two, tmp_path):
    one, other = two
    with one.claim((1, 1), most=9):
        with sqlite3.connect(tmp_path / "study.db") as database:
            statement = "UPDATE trial_user_attributes SET value_json = '{}' WHERE key = 'process'"
            assert database.execute(statement).rowcount
        database.close()
        with pytest.raises(SessionFileError, match=r"study\.db cannot be read .*remove this one$"):
            other.claimed()
