"""Where a run writes: a folder next to the output, moved into place when all is finished."""

from __future__ import annotations

import shutil
from pathlib import Path

from tersely.errors import ConfigError, Problem, SessionFileError
from tersely.jobs.output.record import NAME, RunRecord, read_record, write_record
from tersely.storage.durable import PARTIAL, make_folder, sync_folder

CHECKPOINT = "checkpoint"
"""The part of a run's folder that is not part of its result."""


def partial_folder(output: Path) -> Path:
    """Return the folder of a run that is not finished.

    Args:
        output: the folder its result will have.
    """
    return output.with_name(f"{output.name}.partial")


def previous_folder(output: Path) -> Path:
    """Return where the result of the run before is while a new one takes its place.

    Args:
        output: the folder of the result.
    """
    return output.with_name(f"{output.name}.previous")


def is_inside(place: Path, run: Path) -> bool:
    """Tell whether a place is in the folder of a run, which the next run replaces as a whole.

    Args:
        place: a file or folder, which need not exist.
        run: the run's folder.
    """
    return run.resolve() in place.resolve().parents


def check_output(output: Path) -> None:
    """Refuse an output whose folders hold something else than runs of tersely.

    Args:
        output: the folder of the result, which need not exist.

    Raises:
        ConfigError: something of the user's would be lost.
    """
    problems = []
    for folder in (output, partial_folder(output), previous_folder(output)):
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            found = "a link" if folder.is_symlink() else "a file"
            problems.append(Problem("output", f"{folder} is {found}, expected a folder or nothing"))
        elif folder.exists() and read_record(folder) is None and _holds_others(folder):
            problems.append(
                Problem(
                    "output",
                    f"{folder} holds files that no run of tersely wrote, and a run replaces its "
                    "whole output",
                    "name a folder of its own, such as 'runs/first'",
                )
            )
    if problems:
        raise ConfigError(problems)


def _holds_others(folder: Path) -> bool:
    # A run that was killed with its very first record in hand leaves no more than that file.
    begun = set(folder.glob(f".{NAME}.*{PARTIAL}"))
    try:
        return any(path not in begun for path in folder.iterdir())
    except FileNotFoundError:  # another run has just moved it
        return False


def recover(output: Path) -> None:
    """Finish or undo a swap that was cut off: the newest finished run ends in its place.

    Args:
        output: the folder of the result.

    Raises:
        OSError: a folder cannot be moved.
        SessionFileError: the record of a run is damaged.
    """
    previous = previous_folder(output)
    if previous.exists() and not output.exists():
        previous.rename(output)
        sync_folder(output.parent)
    remove_run(previous)
    record = read_record(partial_folder(output))
    if record is not None and record.state == "finished":
        publish(output)


def start_over(output: Path, record: RunRecord) -> Path:
    """Make the folder of a new run; what an interrupted one left in it is removed.

    Args:
        output: the folder of the result.
        record: the record of the new run.

    Returns:
        The folder to write to; it holds the record and nothing else.

    Raises:
        OSError: it cannot be made.
    """
    partial = partial_folder(output)
    make_folder(partial)
    write_record(partial, record)  # first, so that no old phase counts once its files are gone
    _remove_contents(partial)
    return partial


def remove_run(folder: Path) -> None:
    """Remove the folder of a run, if there is one.

    Args:
        folder: the run's folder.

    Raises:
        OSError: a file cannot be removed.
    """
    if folder.exists():
        _remove_contents(folder)
        (folder / NAME).unlink(missing_ok=True)  # last: what is left is known as a run until then
        folder.rmdir()


def _remove_contents(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != NAME:
            path.unlink()


def publish(output: Path) -> None:
    """Put a finished run in the place of the one before; one of the two exists at any moment.

    Args:
        output: the folder of the result, whose partial folder has a finished record.

    Raises:
        OSError: a folder cannot be moved.
        SessionFileError: a file that the record promises is missing or has another length; the
            result before is untouched.
    """
    partial, previous = partial_folder(output), previous_folder(output)
    _check_promises(partial)
    remove_run(partial / CHECKPOINT)
    if output.exists():
        output.rename(previous)
    partial.rename(output)
    sync_folder(output.parent)
    remove_run(previous)


def written_files(folder: Path) -> dict[str, int]:
    """Return the files of a result, which its record promises: relative path -> bytes.

    Args:
        folder: the run's folder; its record and its checkpoints are not part of the result.
    """
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in (NAME, CHECKPOINT)
    }


def _check_promises(folder: Path) -> None:
    record = read_record(folder)
    found = written_files(folder)
    if record is None or record.state != "finished":
        raise SessionFileError(f"{folder} holds no finished run; run the job again", path=folder)
    for name, size in record.files.items():
        if found.get(name) != size:
            there = f"has {found[name]} bytes" if name in found else "is missing"
            raise SessionFileError(
                f"{folder / name} {there}, and {folder / NAME} promises {size} bytes; remove "
                f"{folder} and run the job again",
                path=folder / name,
            )
