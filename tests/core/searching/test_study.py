"""The database of a search: what was changed in it is refused, never taken over."""

import sqlite3

import pytest

from tersely.errors import SessionFileError

pytest.importorskip("optuna")

from tersely.searching.study import TrialStore, Tried


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
        SessionFileError, match=r"study\.db does not say what its trials .*remove this one$"
    ):
        opened(place)


def test_what_it_is_of_in_another_form_is_refused(place):
    statement = "UPDATE study_user_attributes SET value_json = '1' WHERE key = 'subject'"
    with pytest.raises(SessionFileError, match=r"damaged where it says what it is of"):
        changed(place, statement)


def test_what_another_process_says_at_the_same_time_is_not_taken_over(tmp_path, monkeypatch):
    first = TrialStore._set

    def at_the_same_time(store, key, value):
        first(store, key, value)
        first(store, key, {"model": "another"})

    monkeypatch.setattr(TrialStore, "_set", at_the_same_time)
    with pytest.raises(SessionFileError, match="something else: model changed"):
        opened(tmp_path / "study.db")


def test_a_file_that_is_no_database_is_refused(place):
    place.write_bytes(b"not a database, and long enough to be read as one" * 20)
    with pytest.raises(SessionFileError, match="file is not a database"):
        opened(place)
