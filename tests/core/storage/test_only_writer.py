"""Several writers of one folder: one after another, so that none removes what another writes."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tersely.errors import SessionFileError
from tersely.storage import only_writer as module
from tersely.storage.only_writer import only_writer
from tersely.storage.session_folder import read_session, save_session


def save(folder, number):
    with only_writer(folder):
        save_session(
            folder,
            tensors={"step": torch.full((100,), float(number))},
            data={"step": number},
            plan={},
            recipe={},
            plugins=[],
        )


def test_a_second_writer_waits_for_the_first(tmp_path):
    is_saved = threading.Event()

    def second():
        save(tmp_path, 2)
        is_saved.set()

    thread = threading.Thread(target=second)
    with only_writer(tmp_path):
        thread.start()
        assert not is_saved.wait(0.2)
    thread.join()

    assert read_session(tmp_path).data == {"step": 2}


def test_many_writers_leave_the_session_of_one(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: save(tmp_path, number), range(60)))

    found = read_session(tmp_path)
    assert found.tensors["step"].unique().tolist() == [found.data["step"]]
    assert len(list(tmp_path.iterdir())) == 2


def test_who_reads_while_others_write_gets_a_whole_session(tmp_path):
    save(tmp_path, 0)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: [save(tmp_path, number) for number in range(60)])
        while not writing.done():
            found = read_session(tmp_path)
            assert found.tensors["step"].unique().tolist() == [found.data["step"]]


def test_a_writer_that_never_ends_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.0)

    with only_writer(tmp_path), pytest.raises(SessionFileError, match="another process has been"):
        save(tmp_path, 1)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_process_that_was_forked_meanwhile_keeps_nobody_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    end, told = os.pipe()
    with only_writer(tmp_path):
        child = os.fork()
        if not child:
            os.close(told)
            os.read(end, 1)  # until the test has closed its end
            os._exit(0)
    try:
        save(tmp_path, 1)
    finally:
        os.close(told)
        os.close(end)
        os.waitpid(child, 0)

    assert read_session(tmp_path).data == {"step": 1}


def test_a_folder_that_cannot_be_opened_is_an_error(tmp_path, monkeypatch):
    def refuse(path, flags):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(module.os, "open", refuse)
    with pytest.raises(SessionFileError, match="cannot be opened: Permission denied; choose"):
        save(tmp_path, 1)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "taken").write_text("")

    with (
        pytest.raises(SessionFileError, match="taken cannot be made"),
        only_writer(tmp_path / "taken"),
    ):
        pass
