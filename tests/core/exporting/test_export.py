"""Session.export: refused, written aside, checked, and moved into place."""

import shutil

import pytest
import torch
from torch import nn

import tersely
from tersely.engine.progress import progress_listener
from tersely.errors import BrokenPluginError, ConfigError, ExportError, UnknownPluginError
from tersely.exporting.into_place import move_all
from tersely.exporting.scratch import scratch_folder

CONFIG = [{"op_types": ["Linear"], "sparse_ratio": 0.5}]


@pytest.fixture
def session(toy_pruners):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    return tersely.prune(model, CONFIG, algorithm="toy")


def test_what_was_written_is_told(session, tmp_path):
    exported = session.export("toy_names", tmp_path / "names.txt")

    assert exported.paths == (tmp_path / "names.txt",)
    assert exported.bytes == len("0.weight 0.bias 2.weight 2.bias")
    assert exported.to_dict() == {
        "format": "toy_names",
        "files": ["names.txt"],
        "bytes": 31,
        "checks": {"names": 4},
    }
    assert [path.name for path in tmp_path.iterdir()] == ["names.txt"]


def test_a_folder_gets_a_file_with_the_ending_of_the_format(session, tmp_path):
    assert session.export("toy_names", tmp_path).paths == (tmp_path / "model.txt",)
    assert session.export("toy_names", f"{tmp_path}/new/").paths == (tmp_path / "new/model.txt",)


def test_a_link_stays_and_the_file_to_which_it_leads_is_written(session, tmp_path):
    (tmp_path / "link.txt").symlink_to("first.txt")

    exported = session.export("toy_names", tmp_path / "link.txt")

    assert exported.paths == (tmp_path / "first.txt",)
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "link.txt").read_text() == (tmp_path / "first.txt").read_text() != ""


def test_a_path_with_the_ending_of_another_format_is_refused(session, tmp_path):
    class Face:
        @tersely.hookimpl
        def tersely_exporters(self):
            reference = "tersely_toy:Names"
            return [tersely.ExporterInfo(name="other", implementation=reference, suffix=".other")]

    name = tersely.registry().register(Face(), name="other-formats")
    try:
        with pytest.raises(
            ExportError, match=r"has the ending of other, and a file of toy_names ends in \.txt"
        ):
            session.export("toy_names", tmp_path / "names.other")
    finally:
        tersely.registry().unregister(name)

    assert list(tmp_path.iterdir()) == []
    assert session.export("toy_names", tmp_path / "names.other").paths[0].exists()


def test_a_place_that_nothing_can_be_written_into_is_an_error(session, tmp_path):
    (tmp_path / "file").write_text("kept")

    with pytest.raises(ExportError, match=r"written into .*file: .*; give another path"):
        session.export("toy_names", tmp_path / "file" / "names.txt")


@pytest.mark.parametrize(
    ("dynamic", "inputs", "text"),
    [
        (None, torch.zeros(1, 5), "Sequential does not run with these inputs: RuntimeError"),
        ("time", torch.zeros(1, 4), "dynamic_shapes is 'time'; expected 'batch'"),
    ],
    ids=["inputs", "dynamic_shapes"],
)
def test_what_a_graph_cannot_be_made_from_is_said(session, dynamic, inputs, text):
    with pytest.raises(ExportError, match=text):
        session.export_program(inputs, dynamic)


def test_the_check_is_left_out_when_it_is_said(session, tmp_path):
    assert session.export("toy_names", tmp_path / "names.txt", check=False).checks == {}


@pytest.mark.parametrize(
    ("fails", "error", "text"),
    [
        ("refusals", ExportError, "toy_names: 4 targets cannot be exported"),
        ("write", BrokenPluginError, r"write\(\) raised ValueError: no more names"),
        ("nothing", BrokenPluginError, "says that it wrote nothing"),
        ("check", ExportError, "0.weight: its name was read differently"),
    ],
)
def test_the_old_file_stays_when_an_export_fails(session, tmp_path, fails, error, text):
    place = tmp_path / "names.txt"
    place.write_text("old")

    with pytest.raises(error, match=text):
        session.export("toy_names", place, options={"fails": fails})

    assert place.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["names.txt"]


def test_a_failure_on_a_full_disk_is_said_to_be_one(session, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4096))

    with pytest.raises(OSError, match="No space left on device") as caught:
        session.export("toy_names", tmp_path / "names.txt", options={"fails": "write"})

    assert caught.value.filename == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_session_lacks_is_said_on_a_full_disk_too(session, tmp_path, monkeypatch):
    import tersely_toy

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4096))
    monkeypatch.setattr(tersely_toy.Names, "write", lambda self, source, path: source.program)

    with pytest.raises(ExportError, match="give example_inputs"):
        session.export("toy_names", tmp_path / "names.txt")


def test_wrong_options_are_a_config_error(session, tmp_path):
    with pytest.raises(ConfigError, match="the export to toy_names has 1 problem"):
        session.export("toy_names", tmp_path / "names.txt", options={"depth": 1})


def test_an_unknown_format_names_what_to_install(session, tmp_path):
    with pytest.raises(UnknownPluginError, match="no plugin provides an exporter called 'toy'"):
        session.export("toy", tmp_path / "names.txt")


def test_a_graph_needs_example_inputs(session, tmp_path, monkeypatch):
    import tersely_toy

    monkeypatch.setattr(tersely_toy.Names, "write", lambda self, source, path: source.program)

    with pytest.raises(ExportError, match="give example_inputs"):
        session.export("toy_names", tmp_path / "names.txt")


def test_floats_are_what_a_finished_model_has(session, tmp_path, monkeypatch):
    import tersely_toy

    seen = {}
    monkeypatch.setattr(
        tersely_toy.Names, "refusals", lambda self, source: seen.update(source.floats) or []
    )

    session.export("toy_names", tmp_path / "names.txt")

    finished = session.finalize().state_dict()
    assert list(seen) == list(finished)
    assert all(torch.equal(seen[name], finished[name]) for name in finished)


def test_a_detached_session_is_not_exported(session, tmp_path):
    session.detach()

    with pytest.raises(tersely.SessionError, match="export"):
        session.export("toy_names", tmp_path / "names.txt")


def test_a_folder_takes_the_place_of_the_one_that_was_there(tmp_path):
    with scratch_folder(tmp_path) as scratch:
        for folder, name in ((scratch / "model", "new"), (tmp_path / "model", "old")):
            folder.mkdir()
            (folder / name).write_text("x")

        move_all([scratch / "model"], tmp_path)

    assert [path.name for path in (tmp_path / "model").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_steps_of_an_export_are_told_one_after_another(session, tmp_path, monkeypatch):
    import tersely_toy

    def write(self, source, path):
        assert source.program is not None
        source.tell("spell the names")
        path.write_text("0.weight")
        return [path]

    monkeypatch.setattr(tersely_toy.Names, "write", write)
    heard = []

    with progress_listener(lambda title, done, total: heard.append((title, f"{done}/{total}"))):
        session.export("toy_names", tmp_path / "names.txt", example_inputs=torch.zeros(1, 4))

    assert heard == [
        (f"toy_names: {title}", f"{done}/1")
        for title in (
            "check what the format holds",
            "write",
            "capture the graph",
            "write",
            "spell the names",
            "read it back and compare",
        )
        for done in (0, 1)
    ]
