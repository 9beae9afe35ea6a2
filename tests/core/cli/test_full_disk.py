"""A disk without space is a sentence; an error of a model's own files keeps its traceback."""

import errno
import os

import pytest

from tersely.cli import main as command_line


def fail_with(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number), "/runs/model.pt2")

    monkeypatch.setattr(command_line.cli, "main", fail)


def test_a_full_disk_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(errno.ENOSPC, monkeypatch)

    with pytest.raises(SystemExit) as ended:
        command_line.main([])

    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "tersely: /runs/model.pt2 cannot be written: No space left on device; free some space, or "
        "write to another place\n"
    )


def test_a_missing_file_of_the_users_code_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_with(errno.ENOENT, monkeypatch)

    with pytest.raises(FileNotFoundError):
        command_line.main([])
