"""Reading files: names, folders, encodings."""

import codecs
import gc
import os
from pathlib import Path

import pytest
from messages.documents import NO_SUCH_FILE

from tersely import ConfigError
from tersely.document.reading.positions import Mark
from tersely.document.reading.source import read_document, read_file


def refusal(path):
    with pytest.raises(ConfigError) as caught:
        read_file(path)
    (problem,) = caught.value.problems
    assert caught.value.source == str(path)
    return str(problem)


def test_the_suffix_decides_between_yaml_and_json(tmp_path):
    (tmp_path / "a.yaml").write_text("a: yes\n")
    (tmp_path / "a.JSON").write_text('{"a": 1}')

    assert read_document(tmp_path / "a.yaml").data == {"a": "yes"}
    assert read_document(str(tmp_path / "a.JSON")).data == {"a": 1}


def test_python_data_is_read_as_it_is():
    assert read_document([{"a": (1,)}]).data == [{"a": [1]}]


def test_a_missing_file_names_the_nearest_one(tmp_path):
    (tmp_path / "recipe.yaml").touch()

    assert refusal(tmp_path / "recpie.yaml") == f"{NO_SUCH_FILE} (did you mean 'recipe.yaml'?)"


def test_a_missing_folder_is_said_to_be_missing(tmp_path):
    folder = tmp_path / "nowhere"

    assert refusal(folder / "recipe.yaml") == (
        f"{NO_SUCH_FILE} (there is no folder {str(folder)!r} either)"
    )


def test_code_is_no_document(tmp_path):
    (tmp_path / "recipe.py").write_text("config_list = []")

    assert refusal(tmp_path / "recipe.py") == (
        "this is Python code, expected a YAML or JSON file (write its data to a file with "
        "json.dump, or give the data to tersely.load_recipe)"
    )


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "recipe.yaml").touch()

    assert refusal(tmp_path) == "this is a folder, expected a file (it holds recipe.yaml)"


def test_a_file_that_cannot_be_read_says_why(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    (tmp_path / "recipe.yaml").touch()

    assert refusal(tmp_path / "recipe.yaml") == "the file cannot be read: permission denied"


def test_a_name_that_is_no_name_is_refused():
    assert refusal("a\0b") == "this is not a file name: it has a null character"


def test_bytes_that_are_not_text_are_shown_where_they_are(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes("a: 1\nü: b".encode() + b"\xff")

    assert refusal(path) == "2:5: the byte 0xff is not UTF-8 text (save the file as UTF-8)"


def test_a_byte_order_mark_shifts_nothing(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(codecs.BOM_UTF8 + b"a: 1\n")

    assert read_file(path).mark(("a",)) == Mark(1, 4)


def test_utf_16_with_a_mark_is_read(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes("a: ü\n".encode("utf-16"))

    assert read_file(path).data == {"a": "ü"}


def test_line_ends_of_windows_do_not_count_twice(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_bytes(b'{\r\n  "a": 1\r\n}\r\n')

    assert read_file(path).mark(("a",), "key") == Mark(2, 3)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "recipe.yaml")

    assert refusal(tmp_path / "recipe.yaml") == "this is a pipe or a device, expected a file"


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused(name):
    assert refusal(name) == "this is a pipe or a device, expected a file"


def test_collecting_garbage_goes_on_after_a_long_file(tmp_path):
    place = tmp_path / "long.yaml"
    place.write_text("a: [" + "b, " * 50_000 + "b]\n")

    read_file(place)
    assert gc.isenabled()

    place.write_text("a: [" + "b, " * 50_000)
    with pytest.raises(ConfigError):
        read_file(place)
    assert gc.isenabled()
