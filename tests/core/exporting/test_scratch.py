"""What killed exports leave beside their destination: the next export removes it, and no other."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from tersely.exporting import scratch as scratching
from tersely.exporting.scratch import scratch_folder

HOLD = """
import sys
from pathlib import Path

from tersely.exporting.scratch import scratch_folder

with scratch_folder(Path(sys.argv[1])) as scratch:
    (scratch / "half").write_bytes(b"x")
    print(scratch, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that is in the middle of an export."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert process.stdout.readline().startswith(str(tmp_path))
        yield process
        process.kill()


def names_in(place):
    return sorted(one.name for one in place.iterdir())


def killed(process):
    process.kill()
    process.wait()


def test_the_folder_of_a_killed_export_is_removed_by_the_next(tmp_path, other):
    killed(other)
    assert len(names_in(tmp_path)) == 1

    with scratch_folder(tmp_path) as scratch:
        assert names_in(tmp_path) == [scratch.name]

    assert names_in(tmp_path) == []


def test_the_folder_of_an_export_under_way_stays(tmp_path, other):
    with scratch_folder(tmp_path) as scratch:
        assert len(names_in(tmp_path)) == 2

    (left,) = tmp_path.iterdir()
    assert left != scratch
    assert (left / "half").exists()
    other.communicate("")
    assert names_in(tmp_path) == []


def test_two_exports_of_one_process_leave_each_other_alone(tmp_path):
    with scratch_folder(tmp_path) as one, scratch_folder(tmp_path) as two:
        assert one.exists()
        assert two.exists()
        # Asking for the lock within a process gives it back, so that it must not be asked for.
        done = subprocess.run(
            [sys.executable, "-c", HOLD, str(tmp_path)],
            input="", capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout
        assert names_in(tmp_path) == sorted([one.name, two.name])


@pytest.mark.parametrize("other_path", ["link", "."])
def test_two_exports_of_one_process_by_different_paths_leave_each_other_alone(
    tmp_path, other_path, monkeypatch
):
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "link").symlink_to(place)
    monkeypatch.chdir(tmp_path if other_path == "link" else place)

    with scratch_folder(place) as one, scratch_folder(Path(other_path)) as two:
        assert one.exists()
        assert two.exists()


def test_folders_of_the_users_own_and_links_stay(tmp_path, other):
    killed(other)
    (left,) = tmp_path.iterdir()
    elsewhere = tmp_path / "elsewhere"
    left.rename(elsewhere)
    (tmp_path / ".tersely-export-own").mkdir()
    (tmp_path / ".tersely-export-link").symlink_to(elsewhere)

    with scratch_folder(tmp_path):
        pass

    assert names_in(tmp_path) == [".tersely-export-link", ".tersely-export-own", "elsewhere"]
    assert (elsewhere / "half").exists()


def test_where_files_cannot_be_locked_nothing_is_taken_for_left(tmp_path, other, monkeypatch):
    killed(other)
    monkeypatch.setattr(scratching, "take_lock", lambda descriptor: None)

    with scratch_folder(tmp_path):
        pass

    assert len(names_in(tmp_path)) == 1


def test_the_folder_of_an_export_on_another_machine_stays(tmp_path, other, monkeypatch):
    killed(other)
    monkeypatch.setattr(scratching.socket, "gethostname", lambda: "elsewhere")

    with scratch_folder(tmp_path):
        pass

    assert len(names_in(tmp_path)) == 1


def test_a_folder_that_is_not_locked_yet_stays(tmp_path, monkeypatch):
    def take_after_another_export(descriptor):
        scratching.remove_left(tmp_path)
        return take(descriptor)

    take = scratching.take_lock
    monkeypatch.setattr(scratching, "_guard", contextlib.nullcontext())
    monkeypatch.setattr(scratching, "take_lock", take_after_another_export)

    with scratch_folder(tmp_path) as scratch:
        assert scratch.exists()


def test_a_folder_that_cannot_be_put_back_stays_and_stops_no_export(tmp_path, other, monkeypatch):
    def refuse(path, parent):
        raise PermissionError(path)

    killed(other)
    monkeypatch.setattr(scratching, "_give_back", refuse)

    with scratch_folder(tmp_path) as scratch:
        assert scratch.exists()

    assert len(names_in(tmp_path)) == 1


@pytest.mark.parametrize("has_new", [True, False])
def test_what_was_moved_aside_when_the_export_was_killed_comes_back(tmp_path, other, has_new):
    killed(other)
    (left,) = tmp_path.iterdir()
    (left / "model.before").mkdir()
    if has_new:  # it had not taken the place yet
        (left / "model").mkdir()

    with scratch_folder(tmp_path):
        pass

    assert names_in(tmp_path) == (["model"] if has_new else [])
