"""Files that are written whole or not at all, whatever is at their place."""

import os
import threading

import pytest

from tersely.storage.durable import write_whole


def test_a_link_stays_and_the_file_to_which_it_leads_is_written(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/first").write_text("old")
    (tmp_path / "link").symlink_to("real/first")

    write_whole(tmp_path / "link", "new")

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real/first").read_text() == "new"
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["first"]


def test_a_link_to_nothing_leads_to_a_new_file(tmp_path):
    (tmp_path / "link").symlink_to("later/new")

    write_whole(tmp_path / "link", "new")

    assert (tmp_path / "later/new").read_text() == "new"


def test_a_pipe_is_written_and_stays_one(tmp_path):
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()

    write_whole(pipe, "new")

    reader.join()
    assert found == ["new"]
    assert pipe.is_fifo()


def test_a_folder_is_not_written_over(tmp_path):
    (tmp_path / "taken").mkdir()

    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "taken", "new")


def test_links_that_lead_in_a_circle_give_way_to_the_file(tmp_path):
    (tmp_path / "link").symlink_to("other")
    (tmp_path / "other").symlink_to("link")

    write_whole(tmp_path / "link", "new")

    assert (tmp_path / "link").read_text() == "new"
