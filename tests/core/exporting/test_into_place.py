"""What an export takes the place of: an earlier one as a whole, and nothing else."""

import pytest

from tersely.errors import ExportError
from tersely.exporting import into_place
from tersely.exporting.exchanging import exchange
from tersely.exporting.into_place import move_all, need_replaceable
from tersely.exporting.scratch import scratch_folder


def folder_of(place, *names):
    place.mkdir()
    for name in names:
        (place / name).write_text(str(place))
    return place


def names_in(place):
    return sorted(one.name for one in place.iterdir())


def test_a_folder_with_entries_of_its_own_is_refused(tmp_path):
    place = folder_of(tmp_path / "model", "config.json", "tokenizer.json", "a", "b", "c")
    with scratch_folder(tmp_path) as scratch:
        made = folder_of(scratch / "model", "config.json", "model.safetensors")

        with pytest.raises(ExportError, match="would delete: a, b, c and 1 more; give another"):
            need_replaceable([made], tmp_path, format="onnx")

    assert names_in(place) == ["a", "b", "c", "config.json", "tokenizer.json"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            ["model-00001-of-00002.bin", "model-00002-of-00002.bin", "model.bin.index.json"],
            ["model.bin"],
        ),
        (["model.bin"], ["model-00001-of-00001.bin", "model.bin.index.json"]),
        ([], ["model.bin"]),
    ],
    ids=["shards", "one_file", "empty"],
)
def test_a_folder_of_an_earlier_export_is_replaced(tmp_path, old, new):
    folder_of(tmp_path / "model", *old)
    with scratch_folder(tmp_path) as scratch:
        made = folder_of(scratch / "model", *new)
        need_replaceable([made], tmp_path, format="onnx")
        move_all([made], tmp_path)

    assert names_in(tmp_path / "model") == new
    assert names_in(tmp_path) == ["model"]


def test_a_folder_is_no_place_for_a_file_nor_the_reverse(tmp_path):
    folder_of(tmp_path / "one", "kept")
    (tmp_path / "two").write_text("kept")
    with scratch_folder(tmp_path) as scratch:
        (scratch / "one").write_text("new")
        folder_of(scratch / "two", "new")

        with pytest.raises(ExportError, match="one is a folder, and the format writes a file"):
            need_replaceable([scratch / "one"], tmp_path, format="onnx")
        with pytest.raises(ExportError, match="two is a file, and the format writes a folder"):
            need_replaceable([scratch / "two"], tmp_path, format="onnx")


def test_folders_change_places_in_one_step_or_not_at_all(tmp_path):
    one, other = folder_of(tmp_path / "one", "first"), folder_of(tmp_path / "other", "second")

    has_changed = exchange(one, other)

    assert names_in(one) == (["second"] if has_changed else ["first"])
    assert names_in(other) == (["first"] if has_changed else ["second"])
    assert not exchange(one, tmp_path / "missing")
    assert one.exists()


def test_where_folders_cannot_change_places_the_old_one_comes_back_on_failure(
    tmp_path, monkeypatch
):
    place = folder_of(tmp_path / "model", "old")
    monkeypatch.setattr(into_place, "exchange", lambda one, other: False)
    with scratch_folder(tmp_path) as scratch:
        with pytest.raises(FileNotFoundError):
            into_place._move(scratch / "model", place)
        assert names_in(place) == ["old"]

        into_place._move(folder_of(scratch / "model", "new"), place)

    assert names_in(place) == ["new"]


def test_a_file_whose_place_an_index_takes_goes_last(tmp_path):
    place = tmp_path / "model.bin"
    place.write_text("old")
    with scratch_folder(tmp_path) as scratch:
        made = [scratch / "model.bin.index.json", scratch / "model-00001-of-00001.1f.bin"]
        for one in made:
            one.write_text("new")
        need_replaceable(made, tmp_path, format="onnx")

        paths = move_all(made, tmp_path, place=place)

    assert names_in(tmp_path) == sorted(one.name for one in paths)
