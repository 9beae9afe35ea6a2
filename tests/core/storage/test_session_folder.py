"""Saved sessions: what comes back, what each kind of damage says, and crashes at every moment."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from messages.files import (
    ABSENT,
    CHANGED_AFTER,
    INCOMPLETE_JSON,
    NOT_IN_SAFETENSORS,
    WRITING_VERSION,
)

from tersely.errors import SessionFileError, TerselyError
from tersely.storage.session_folder import read_session, save_session

AGAIN = "restore it from a copy or save the session again"


def save(folder: Path, value: float = 1.0, **changes: Any) -> None:
    content: dict[str, Any] = {
        "tensors": {"fc.mask": torch.tensor([True, False]), "fc.score": torch.tensor([value])},
        "data": {"step": value},
        "plan": {"targets": []},
        "recipe": {"pruning": {"algorithm": "level"}},
        "plugins": [{"name": "pruning", "version": "0.1.0"}],
    }
    save_session(folder, **{**content, **changes})


def message(folder: Path) -> str:
    with pytest.raises(SessionFileError) as caught:
        read_session(folder)
    return str(caught.value)


def state_file(folder: Path) -> Path:
    (place,) = folder.glob("state-*.safetensors")
    return place


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    index = folder / "session.json"
    document = json.loads(index.read_text())
    change(document)
    index.write_text(json.dumps(document))


class PowerCut(BaseException):
    """Raised where the power goes; not an Exception, so nothing may treat it as an error."""


class Power:
    """Lets a number of operations on files pass; from then on each fails, clean-up included."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, operations: int) -> None:
        self.left = operations
        for owner, name in ((os, "replace"), (os, "fsync"), (Path, "unlink"), (Path, "open")):
            monkeypatch.setattr(owner, name, self.guard(getattr(owner, name)))

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if self.left <= 0:
                raise PowerCut
            self.left -= 1
            return function(*args, **kwargs)

        return guarded


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    save(tmp_path, 2.5)

    stored = read_session(tmp_path)

    assert stored.tensors["fc.mask"].tolist() == [True, False]
    assert stored.tensors["fc.score"].tolist() == [2.5]
    assert stored.data == {"step": 2.5}
    assert stored.plan == {"targets": []}
    assert stored.recipe == {"pruning": {"algorithm": "level"}}
    assert stored.plugins == [{"name": "pruning", "version": "0.1.0"}]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(0.1),
        torch.empty(0, 3),
        torch.arange(6.0).reshape(2, 3).t(),
        torch.arange(9, dtype=torch.int16)[2:5],
        torch.tensor([1.5, -2.0]).to(torch.float8_e4m3fn),
        torch.tensor([float("nan"), float("inf")]),
    ],
    ids=["scalar", "empty", "transposed", "view", "float8", "not_finite"],
)
def test_a_tensor_comes_back_bit_for_bit(tmp_path: Path, tensor: torch.Tensor) -> None:
    save(tmp_path, tensors={"x": tensor})

    found = read_session(tmp_path).tensors["x"]

    assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
    expected = tensor.contiguous().view(-1).view(torch.uint8)
    assert torch.equal(found.view(-1).view(torch.uint8), expected)


def test_tensors_that_share_memory_are_both_saved(tmp_path: Path) -> None:
    tied = torch.tensor([1.0, 2.0])

    save(tmp_path, tensors={"encoder": tied, "decoder": tied})

    assert read_session(tmp_path).tensors["decoder"].tolist() == [1.0, 2.0]


def test_a_session_without_tensors_is_saved(tmp_path: Path) -> None:
    save(tmp_path, tensors={})

    assert read_session(tmp_path).tensors == {}


def test_read_tensors_belong_to_the_caller(tmp_path: Path) -> None:
    save(tmp_path, 1.0)

    read_session(tmp_path).tensors["fc.score"].add_(1)

    assert read_session(tmp_path).tensors["fc.score"].tolist() == [1.0]


def test_numbers_as_keys_keep_the_digest_valid(tmp_path: Path) -> None:
    save(tmp_path, data={"groups": {10: "b", 9: "a"}})

    assert read_session(tmp_path).data == {"groups": {"10": "b", "9": "a"}}


def test_saving_again_leaves_one_state_file(tmp_path: Path) -> None:
    save(tmp_path, 1.0)
    save(tmp_path, 2.0)

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "session.json",
        state_file(tmp_path).name,
    ]


def test_files_of_others_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"mine")

    save(tmp_path)

    assert (tmp_path / "weights.safetensors").read_bytes() == b"mine"


def test_the_state_file_can_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()

    save(tmp_path)

    assert state_file(tmp_path).stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_error_is_one_of_tersely_and_one_of_files(tmp_path: Path) -> None:
    with pytest.raises(SessionFileError) as caught:
        read_session(tmp_path / "nowhere")

    assert isinstance(caught.value, TerselyError)
    assert isinstance(caught.value, OSError)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    place = tmp_path / "nowhere"

    assert message(place) == f"{place} {ABSENT} folder that session.save() wrote"


def test_an_empty_folder_holds_no_session(tmp_path: Path) -> None:
    assert message(tmp_path) == (
        f"{tmp_path} holds no saved session: it has no session.json; give the folder that "
        "session.save() wrote"
    )


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    place = tmp_path / "session"
    place.touch()

    assert message(place) == (f"{place} is a file; expected the folder that session.save() wrote")


def test_an_interrupted_first_save_is_told_apart(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "session.json").unlink()

    assert message(tmp_path) == (
        f"{tmp_path} has no session.json: its first save was interrupted, so nothing was saved "
        "yet; save the session again"
    )


def test_json_of_something_else_is_not_a_session(tmp_path: Path) -> None:
    (tmp_path / "session.json").write_text("{}")

    assert message(tmp_path) == (
        f"{tmp_path / 'session.json'} is not a saved session: it has no format "
        "'tersely-session'; give the folder that session.save() wrote"
    )


def test_another_format_version_names_both(tmp_path: Path) -> None:
    save(tmp_path)
    edit(tmp_path, lambda document: document.update(version=7, tersely="9.0"))

    text = message(tmp_path)

    assert text.startswith(
        f"{tmp_path / 'session.json'} has session format 7, written by tersely 9.0; this tersely "
    )
    assert text.endswith(f" reads format 1; {WRITING_VERSION}")


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    save(tmp_path)
    edit(tmp_path, lambda document: document.pop("plan"))

    assert message(tmp_path) == (
        f"{tmp_path / 'session.json'} is incomplete: 'plan' holds nothing, expected a dict; {AGAIN}"
    )


def test_an_edited_session_is_noticed(tmp_path: Path) -> None:
    save(tmp_path)
    edit(tmp_path, lambda document: document["data"].update(step=3))

    assert message(tmp_path) == (
        f"{tmp_path / 'session.json'} {CHANGED_AFTER} saved: its digest does not fit its "
        f"content; {AGAIN}"
    )


def test_a_session_that_is_not_text_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "session.json").write_bytes(b"{\xff}")

    assert message(tmp_path) == (
        f"{tmp_path / 'session.json'} is damaged: byte 1 is not UTF-8; {AGAIN}"
    )


def test_a_session_that_is_cut_off_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "session.json").write_text('{"format": ')

    assert message(tmp_path) == (
        f"{tmp_path / 'session.json'} {INCOMPLETE_JSON} (Expecting value: line 1 column 12 "
        f"(char 11)); {AGAIN}"
    )


def test_a_missing_state_file_is_named(tmp_path: Path) -> None:
    save(tmp_path)
    place = state_file(tmp_path)
    place.unlink()

    assert message(tmp_path) == (
        f"{place} is missing, but session.json names it; copy the whole folder, or save the "
        "session again"
    )


def test_a_state_file_that_is_cut_off_tells_both_sizes(tmp_path: Path) -> None:
    save(tmp_path)
    place = state_file(tmp_path)
    content = place.read_bytes()
    place.write_bytes(content[:-1])

    assert message(tmp_path) == (
        f"{place} has {len(content) - 1} bytes, expected {len(content)}: it is cut off or was "
        f"changed; {AGAIN}"
    )


def test_a_flipped_bit_in_the_state_file_is_noticed(tmp_path: Path) -> None:
    save(tmp_path)
    place = state_file(tmp_path)
    content = bytearray(place.read_bytes())
    content[-1] ^= 1
    place.write_bytes(content)

    text = message(tmp_path)

    assert text.startswith(f"{place} is damaged: its digest is ")
    assert text.endswith(f"...; {AGAIN}")


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    place = tmp_path / "taken"
    place.touch()

    with pytest.raises(SessionFileError) as caught:
        save(place)

    assert str(caught.value) == (
        f"{place}: the session was not saved: File exists; free some space or choose a folder "
        "that can be written; what was there before is untouched"
    )


def test_a_tensor_that_cannot_be_stored_is_named(tmp_path: Path) -> None:
    with pytest.raises(SessionFileError) as caught:
        save(tmp_path, tensors={"fc.scale": torch.zeros(2, dtype=torch.complex128)})

    assert str(caught.value) == (
        f"{tmp_path}: the session was not saved: 'fc.scale' is a torch.strided tensor of "
        f"torch.complex128, {NOT_IN_SAFETENSORS}; convert it to a dense tensor of a common "
        "dtype first; what was there before is untouched"
    )


def test_a_value_that_is_not_json_leaves_the_old_session(tmp_path: Path) -> None:
    save(tmp_path, 1.0)

    with pytest.raises(SessionFileError, match="Object of type object is not JSON"):
        save(tmp_path, 2.0, data={"step": object()})

    assert read_session(tmp_path).data == {"step": 1.0}


def test_a_crash_at_any_operation_leaves_the_old_session_or_the_new(tmp_path: Path) -> None:
    outcomes = []
    for operations in range(40):
        folder = tmp_path / str(operations)
        save(folder, 1.0)
        crashed = False
        with pytest.MonkeyPatch.context() as patch:
            Power(patch, operations)
            try:
                save(folder, 2.0)
            except PowerCut:
                crashed = True
        stored = read_session(folder)
        assert stored.tensors["fc.score"].tolist() == [stored.data["step"]]
        outcomes.append((stored.data["step"], crashed))
        save(folder, 3.0)
        assert len(list(folder.iterdir())) == 2
        if not crashed:
            break

    values = [value for value, _ in outcomes]
    assert outcomes[0] == (1.0, True)
    assert outcomes[-1] == (2.0, False)
    assert values == sorted(values)


def test_a_crash_during_the_first_save_says_that_nothing_was_saved(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        Power(patch, 6)
        with pytest.raises(PowerCut):
            save(tmp_path / "first")

    assert "its first save was interrupted" in message(tmp_path / "first")


def test_a_new_file_that_is_cut_at_any_byte_does_not_disturb_the_old_session(
    tmp_path: Path,
) -> None:
    save(tmp_path / "old", 1.0)
    save(tmp_path / "new", 2.0)
    index = (tmp_path / "new" / "session.json").read_bytes()
    state = state_file(tmp_path / "new").read_bytes()

    for content, name in ((state, ".state.1.partial"), (index, ".session.json.1.partial")):
        for length in range(len(content) + 1):
            (tmp_path / "old" / name).write_bytes(content[:length])
            assert read_session(tmp_path / "old").data == {"step": 1.0}


def test_an_index_that_is_cut_at_any_byte_is_an_error(tmp_path: Path) -> None:
    save(tmp_path)
    index = tmp_path / "session.json"
    content = index.read_bytes().rstrip()

    for length in range(len(content)):
        index.write_bytes(content[:length])
        with pytest.raises(SessionFileError):
            read_session(tmp_path)


def test_a_state_file_that_is_cut_at_any_byte_is_an_error(tmp_path: Path) -> None:
    save(tmp_path)
    place = state_file(tmp_path)
    content = place.read_bytes()

    for length in range(len(content)):
        place.write_bytes(content[:length])
        with pytest.raises(SessionFileError, match="cut off"):
            read_session(tmp_path)


def test_a_stale_file_that_cannot_be_removed_is_reported_and_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, 1.0)

    def held(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "held by another program")

    monkeypatch.setattr(Path, "unlink", held)
    save(tmp_path, 2.0)

    assert "stale_file_kept" in capsys.readouterr().err
    assert read_session(tmp_path).data == {"step": 2.0}
