"""Targets inside nested containers (rule T1.8): masks, scales and taps, and the names they have."""

import dataclasses
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import tersely


@dataclasses.dataclass
class Heads:
    cls: Tensor
    box: Tensor


class Pyramid(NamedTuple):
    p2: object
    p3: object


class Detector(nn.Module):
    """Returns what detectors return: dictionaries, lists and records in each other."""

    def __init__(self, kind="dicts"):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.kind = kind

    def forward(self, x):
        y = self.layer(x)
        if self.kind == "dicts":
            return {"p2": {"cls": y, "box": -y}, "p3": {"cls": 2 * y, "box": None}}
        if self.kind == "list":
            return [{"boxes": y, "scores": -y}, {"boxes": 2 * y, "scores": y}]
        if self.kind == "records":
            return Pyramid(Heads(y, -y), Heads(2 * y, y))
        return {"p2.cls": y, "p2": {"cls": -y}}


class Reader(nn.Module):
    def forward(self, batch):
        return batch["image"]["left"] + batch["image"]["right"]


class Stereo(nn.Module):
    def __init__(self):
        super().__init__()
        self.reader = Reader()

    def forward(self, batch):
        return self.reader(batch)


def build(kind="dicts", seed=0):
    torch.manual_seed(seed)
    return Detector(kind).eval()


@pytest.fixture
def data():
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(1))


def prune(model, target, data, name=""):
    names = {"op_names": [name]} if name else {"op_types": ["Detector"]}
    entry = names | {
        "target_names": [target],
        "sparse_ratio": 0.5,
        "granularity": "per_channel",
    }
    return tersely.prune(model, [entry], algorithm="l1_norm", data=[data])


def test_a_mask_reaches_a_dictionary_in_a_dictionary_and_nothing_else(data):
    model = build()
    plain = model(data)
    mask = prune(model, "_output_p2.cls", data).masks()[""]["_output_p2.cls"]
    found = model(data)
    assert mask.sum() == 2
    assert torch.equal(found["p2"]["cls"], plain["p2"]["cls"] * mask)
    assert torch.equal(found["p2"]["box"], plain["p2"]["box"])
    assert torch.equal(found["p3"]["cls"], plain["p3"]["cls"])


def test_an_element_of_a_list_is_addressed_by_its_index(data):
    model = build("list")
    mask = prune(model, "_output_1.boxes", data).masks()[""]["_output_1.boxes"]
    first, second = model(data)
    assert torch.equal(second["boxes"] != 0, mask.expand(6, 4))
    assert bool((first["boxes"] != 0).all())


def test_records_keep_their_types(data):
    model = build("records")
    prune(model, "_output_p3.cls", data)
    found = model(data)
    assert type(found) is Pyramid
    assert type(found.p3) is Heads
    assert (found.p3.cls == 0).sum() == 12
    assert (found.p3.box == 0).sum() == 0


def test_a_key_that_holds_the_dot_itself_goes_first(data):
    model = build("flat")
    prune(model, "_output_p2.cls", data)
    found = model(data)
    assert (found["p2.cls"] == 0).sum() == 12
    assert (found["p2"]["cls"] == 0).sum() == 0


@pytest.mark.parametrize("target", ["_input_batch.image.left", "_input_0.image.left"])
def test_an_input_inside_a_container_is_masked_and_the_callers_stays(target):
    model, ones = Stereo(), torch.ones(3, 4)
    batch = {"image": {"left": ones, "right": ones}}
    prune(
        model,
        target,
        ({"image": {"left": torch.arange(4.0).expand(3, 4), "right": ones}},),
        "reader",
    )
    assert model(batch).tolist() == [[1.0, 1.0, 2.0, 2.0]] * 3
    assert batch["image"]["left"] is ones


def test_nested_inputs_and_outputs_are_quantized_and_saved(data, tmp_path):
    entry = {"op_types": ["Detector"], "target_names": ["_output_p2.cls", "_output_p2.box"]}
    model = build()
    session = tersely.quantize(model, [entry], algorithm="ptq", data=[data])
    found = session.qparams()[""]
    assert found.keys() == {"_output_p2.cls", "_output_p2.box"}
    scale = build()(data)["p2"]["cls"].abs().max() / 127
    assert torch.allclose(found["_output_p2.cls"].scale, scale)
    session.save(tmp_path / "saved")
    again = build()
    tersely.load_session(again, tmp_path / "saved")
    assert torch.equal(again(data)["p2"]["cls"], model(data)["p2"]["cls"])


def test_a_checkpoint_of_a_nested_target_loads_strictly(data):
    entry = {"op_types": ["Detector"], "target_names": ["_output_p2.cls"]}
    first, second = build(), build(seed=3)
    tersely.quantize(first, [entry], algorithm="lsq", data=[data])
    session = tersely.quantize(second, [entry], algorithm="lsq", data=[data])
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(data)["p2"]["cls"], first(data)["p2"]["cls"])
    assert list(session.learned()) == ["quantization._output_p2.cls.scale"]


def test_the_loss_compares_nested_outputs_of_student_and_teacher(data):
    student, teacher = build(), build(seed=1)
    entry = {"op_types": ["Detector"], "target_names": ["_output_p3.cls"]}
    session = tersely.distill(student, [entry], teacher=teacher)
    found = student(data)["p3"]["cls"]
    session.teacher_forward(data)
    expected = (found - teacher(data)["p3"]["cls"]).square().mean()
    assert torch.allclose(session.loss(), expected)


def test_a_nested_target_is_frozen_by_its_full_name(data):
    model = nn.Sequential(build())
    session = prune(model, "_output_p2.cls", data, "0")
    session.freeze(["0._output_p2.cls"])
    assert session.frozen == ("0._output_p2.cls",)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("_output_p2.cls.x", "on the way to it there is one Tensor"),
        ("_output_p2.score", "on the way to it there is a dict with the keys cls, box"),
        ("_output_p9.cls", "on the way to it there is a dict with the keys p2, p3"),
        ("_output_p2", "is a dict, not a tensor"),
    ],
)
def test_a_step_to_nothing_is_an_error_that_lists_what_is_there(data, target, text):
    with pytest.raises(tersely.SessionError, match=text):
        prune(build(), target, data)


def test_several_tensors_at_the_end_are_an_error_that_spells_an_address(data):
    class Deep(Detector):
        def forward(self, x):
            return {"out": super().forward(x)}

    entry = {"op_types": ["Deep"], "target_names": ["_output_out.p2"], "sparse_ratio": 0.5}
    with pytest.raises(tersely.SessionError, match=r"cls, box; .* as in _output_out\.p2\.cls"):
        tersely.prune(Deep(), [entry], algorithm="level", data=[data])


def test_a_tap_that_finds_nothing_lets_the_forward_pass_and_is_told_by_the_loss(data):
    student = build()
    entry = {"op_types": ["Detector"], "target_names": ["_output_p2.score"]}
    session = tersely.distill(student, [entry], teacher=build(seed=1))
    student(data)
    session.teacher_forward(data)
    with pytest.raises(tersely.SessionError, match="with the keys cls, box"):
        session.loss()


@pytest.mark.parametrize("target", ["_output_.cls", "_output_p2.", "_input_x..y"])
def test_an_empty_step_is_a_plan_error(target):
    entry = {"op_types": ["Detector"], "target_names": [target], "sparse_ratio": 0.5}
    with pytest.raises(tersely.PlanError, match="a step between two dots is empty"):
        tersely.attach(build(), {"pruning": {"algorithm": "level", "config_list": [entry]}})


def test_a_model_with_a_nested_target_compiles_as_one_graph(data):
    model = build()
    prune(model, "_output_p2.cls", data)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(data)["p2"]["cls"], model(data)["p2"]["cls"])


def test_an_item_on_the_way_that_is_none_stays_none(data):
    model = build()
    entry = {"op_types": ["Detector"], "target_names": ["_output_p3.box"], "quant_dtype": "int8"}
    session = tersely.attach(model, {"quantization": {"algorithm": "qat", "config_list": [entry]}})
    model.train()
    assert model(data)["p3"]["box"] is None
    session.detach()
