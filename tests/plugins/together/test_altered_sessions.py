"""Saved sessions that were altered together with their digests: refused before the first write."""

import json
import shutil

import pytest
import torch
from torch import nn

import tersely
from tersely.storage.json_file import body_digest
from tersely.storage.seal import seal_of
from tersely.storage.tensor_file import tensors_in, write_tensors

SECTIONS = ("data", "plan", "recipe", "plugins", "state")
LINEAR = {"op_types": ["Linear"]}
DATA = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
RECIPES = {
    "movement": {
        "pruning": {
            "algorithm": "movement",
            "options": {"warmup_steps": 0, "cooldown_begin_step": 8},
            "config_list": [LINEAR | {"target_names": ["weight"], "sparse_ratio": 0.5}],
        }
    },
    "ptq": {
        "quantization": {
            "algorithm": "ptq",
            "config_list": [LINEAR | {"granularity": "per_channel", "quant_scheme": "affine"}],
        }
    },
    "lsq": {"quantization": {"algorithm": "lsq", "config_list": [LINEAR]}},
    "qat": {"quantization": {"algorithm": "qat", "config_list": [LINEAR]}},
    "awq": {
        "quantization": {
            "algorithm": "awq",
            "config_list": [LINEAR | {"target_names": ["weight"], "quant_dtype": "int4"}],
        }
    },
    "distill": {
        "distillation": {"config_list": [{"op_names": ["2"], "link": "0", "projection": "linear"}]}
    },
}


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    for name, recipe in RECIPES.items():
        teacher = build() if name == "distill" else None
        session = tersely.attach(build(), recipe, teacher=teacher)
        session.calibrate([DATA])
        session.compress()
        session.model.train()
        loss = session.model(DATA).square().mean()
        if teacher is not None:
            session.teacher_forward(DATA)
        session.total_loss(loss).backward()
        session.step()
        session.save(folder / name)
    return folder


def altered(saved, tmp_path, name, change):
    folder = tmp_path / "altered"
    shutil.copytree(saved / name, folder)
    index = folder / "session.json"
    document = json.loads(index.read_text(encoding="utf-8"))
    place = folder / document["state"]["file"]
    tensors = tensors_in(place.read_bytes())
    change(document, tensors)
    place.unlink()
    made, digest = write_tensors(
        folder / "state",
        tensors,
        rename=lambda path, digest: path.with_name(f"state-{digest[:16]}.safetensors"),
    )
    document["state"].update({"file": made.name, **seal_of(made, digest=digest)})
    document["sha256"] = body_digest({key: document[key] for key in SECTIONS})
    index.write_text(json.dumps(document), encoding="utf-8")
    return folder


def dropped(tensors, key):
    del tensors[key]


def longer(tensors, key):
    tensors[key] = torch.cat([tensors[key].flatten(), tensors[key].flatten()])


def scalar(tensors, key):
    tensors[key] = torch.ones((), dtype=tensors[key].dtype)


def not_finite(tensors, key):
    tensors[key] = torch.full_like(tensors[key], torch.nan)


def infinite(tensors, key):
    tensors[key].view(-1)[0] = torch.inf


def of_another_type(tensors, key):
    tensors[key] = tensors[key].to(
        torch.int32 if tensors[key].is_floating_point() else torch.float32
    )


def below_zero(tensors, key):
    tensors[key] = torch.full_like(tensors[key], -1)


def huge(tensors, key):
    tensors[key] = torch.full_like(tensors[key], 1e30)


TENSORS = [
    ("movement", "moved:exp_avg/score:0.weight", dropped),
    ("movement", "moved:exp_avg/score:0.weight", longer),
    ("movement", "moved:step/score:0.weight", not_finite),
    ("movement", "moved:exp_avg_sq/score:0.weight", below_zero),
    ("ptq", "quantization.buffer:scale:0.weight", longer),
    ("ptq", "quantization.buffer:scale:0.weight", scalar),
    ("ptq", "quantization.buffer:scale:0.weight", not_finite),
    ("ptq", "quantization.buffer:scale:0.weight", of_another_type),
    ("ptq", "quantization.buffer:zero_point:0._input_", longer),
    ("ptq", "quantization.buffer:zero_point:0._input_", of_another_type),
    ("qat", "quantization.buffer:low:0._input_", longer),
    ("qat", "quantization.buffer:high:0._input_", not_finite),
    ("qat", "quantization.buffer:low:0._input_", huge),
    ("lsq", "quantization.moved:exp_avg/scale:0.weight", dropped),
    ("lsq", "quantization.moved:exp_avg_sq/scale:0.weight", below_zero),
    ("lsq", "quantization.moved:step/scale:0.weight", below_zero),
    ("lsq", "quantization.moved:exp_avg_sq/scale:0._output_", longer),
    ("lsq", "quantization.learned:scale:0.weight", longer),
    ("lsq", "quantization.buffer:scale:0.weight", dropped),
    ("awq", "quantization.value:0.weight", not_finite),
    ("awq", "quantization.original:0.weight", not_finite),
    ("awq", "quantization.value:0.weight", infinite),
    ("awq", "quantization.original:0.weight", infinite),
    ("awq", "quantization.buffer:input_scale:0.weight", longer),
    ("awq", "quantization.buffer:input_scale:0.weight", scalar),
    ("distill", "distillation.moved:exp_avg/bias:2._output_>0", scalar),
    ("distill", "distillation.moved:exp_avg/weight:2._output_>0", longer),
    ("distill", "distillation.weight:2._output_>0", scalar),
    ("distill", "distillation.bias:2._output_>0", dropped),
]


def refused(saved, tmp_path, name, change):
    folder = altered(saved, tmp_path, name, change)
    model = build()
    with pytest.raises(tersely.SessionFileError):
        tersely.load_session(model, folder, teacher=build() if name == "distill" else None)
    assert [type(module) for module in model] == [nn.Linear, nn.ReLU, nn.Linear]
    before = build().state_dict()
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in before)


@pytest.mark.parametrize("name", RECIPES)
def test_what_was_not_altered_is_loaded(saved, tmp_path, name):
    folder = altered(saved, tmp_path, name, lambda document, tensors: None)
    teacher = build() if name == "distill" else None
    tersely.load_session(build(), folder, teacher=teacher).step()


@pytest.mark.parametrize(("name", "key", "change"), TENSORS)
def test_a_tensor_that_no_session_has_is_refused(saved, tmp_path, name, key, change):
    refused(saved, tmp_path, name, lambda document, tensors: change(tensors, key))


@pytest.mark.parametrize(
    ("key", "value"), [("size", [1]), ("size", [0.5, -1]), ("scope", [1]), ("size", [7, -1])]
)
def test_blocks_that_do_not_divide_their_target_are_refused(saved, tmp_path, key, value):
    def change(document, tensors):
        document["plan"]["targets"][0]["blocks"][key] = value

    refused(saved, tmp_path, "movement", change)


def test_a_setting_of_another_type_is_refused(saved, tmp_path):
    def change(document, tensors):
        document["plan"]["targets"][0]["setting"]["internal_metric_block"] = -0.5

    refused(saved, tmp_path, "movement", change)


@pytest.mark.parametrize(
    ("key", "value"),
    [("kind", -0.5), ("kind", "weight"), ("method", "prune"), ("has_experts", [1])],
)
def test_a_word_that_no_plan_has_is_refused(saved, tmp_path, key, value):
    def change(document, tensors):
        document["plan"]["targets"][0][key] = value

    refused(saved, tmp_path, "ptq", change)


@pytest.mark.parametrize("key", ["sparse_ratio", "min_sparse_ratio"])
def test_a_ratio_that_is_no_number_is_refused(saved, tmp_path, key):
    def change(document, tensors):
        document["plan"]["targets"][0]["setting"][key] = {"0.weight": 0}

    refused(saved, tmp_path, "movement", change)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("movement", "granularity", 2),
        ("ptq", "granularity", {"group": 0}),
        ("ptq", "quant_dtype", "int99"),
        ("distill", "apply_method", 0),
        ("distill", "apply_method", ["mse"]),
        ("distill", "lambda", "much"),
        ("distill", "unknown", 1),
    ],
)
def test_a_setting_that_no_document_may_have_is_refused(saved, tmp_path, name, key, value):
    def change(document, tensors):
        document["plan"]["targets"][0]["setting"][key] = value

    refused(saved, tmp_path, name, change)


def test_a_projection_that_the_plan_does_not_ask_for_is_refused(saved, tmp_path):
    def change(document, tensors):
        del document["plan"]["targets"][0]["setting"]["projection"]

    refused(saved, tmp_path, "distill", change)


def _shrunk(folder):
    session = tersely.prune(build(), [LINEAR | {"op_names": ["0"], "sparse_ratio": 0.5}])
    session.shrink(DATA)
    session.save(folder / "shrunk")


def beyond(cut, attributes):
    cut["kept"][0][-1] = 99


def twice(cut, attributes):
    cut["kept"][0][-1] = cut["kept"][0][0]


def no_number(cut, attributes):
    attributes[0][2] = "four"


def a_method(cut, attributes):
    attributes[0][1] = "forward"


def no_module(cut, attributes):
    attributes[0][0] = 3


@pytest.mark.parametrize("change", [beyond, twice, no_number, a_method, no_module])
def test_a_cut_that_does_not_fit_the_model_is_refused(tmp_path, change):
    _shrunk(tmp_path)

    def changed(document, tensors):
        (record,) = document["data"]["cuts"]
        change(record["tensors"][0], record["attributes"])

    refused(tmp_path, tmp_path, "shrunk", changed)
