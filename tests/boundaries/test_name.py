"""The name the project had before it was published is gone, but for the line that says so."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
OLD = "laco" + "nic"


def _files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.split(b"\0")
    return [ROOT / name.decode() for name in listed if name]


def test_the_old_name_stands_in_the_changelog_alone():
    files = [file for file in _files() if file.is_file()]
    assert len(files) > 100
    assert [
        file.relative_to(ROOT).as_posix()
        for file in files
        if OLD.encode() in file.read_bytes().lower() or OLD in file.name.lower()
    ] == ["docs/changelog.md"]


def test_no_file_or_folder_carries_the_old_name():
    assert [file for file in _files() if OLD in str(file.relative_to(ROOT)).lower()] == []
