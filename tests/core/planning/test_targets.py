"""What becomes of the targets of a selected module: kinds, shapes, absences and obstacles."""

import pytest
import torch
from messages.planning import NONE_THERE
from torch import nn

RATIO = {"sparse_ratio": 0.5}


class Holder(nn.Module):
    """A parameter, two buffers and a forward of every sort of argument."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(2, 3))
        self.absent = None
        self.register_parameter("nothing", None)
        self.register_buffer("scores", torch.zeros(5))
        self.register_buffer("steps", torch.zeros(3, dtype=torch.int64))

    def forward(self, x, mask=None, *, scale=1.0):
        return x


@pytest.fixture
def holder():
    return nn.Sequential(Holder())


def kinds(plan):
    return [(target.target, target.kind, target.shape) for target in plan]


def test_a_parameter_and_a_buffer_are_found_by_name(make, holder):
    plan = make(holder, {"op_names": ["0"], "target_names": ["table", "scores"], **RATIO})

    assert kinds(plan) == [("table", "parameter", (2, 3)), ("scores", "buffer", (5,))]


def test_inputs_and_outputs_have_no_shape_yet(make, holder):
    names = ["_input_", "_input_1", "_input_scale", "_output_", "_output_hidden"]
    plan = make(holder, {"op_names": ["0"], "target_names": names, **RATIO})

    assert kinds(plan) == [
        *((name, "input", None) for name in names[:3]),
        *((name, "output", None) for name in names[3:]),
    ]


def test_the_full_name_of_a_target_of_the_root_is_the_target(make):
    plan = make(nn.Linear(2, 2), {"op_names": [""], "target_names": ["weight"], **RATIO})

    assert plan.targets[0].name == "weight"


def test_a_parameter_that_is_none_is_skipped_and_noted(make, net):
    plan = make(net, {"op_names": ["fc10"], **RATIO})

    assert [target.name for target in plan] == ["fc10.weight"]
    assert [str(one) for one in plan.skipped] == [f"fc10.bias is skipped: {NONE_THERE}"]


def test_a_named_parameter_that_is_none_is_skipped_too(make, holder):
    plan = make(holder, {"op_names": ["0"], "target_names": ["table", "nothing"], **RATIO})

    assert [str(one) for one in plan.skipped] == [f"0.nothing is skipped: {NONE_THERE}"]


def test_what_follows_a_parameter_that_is_none_is_skipped(make):
    attention = nn.MultiheadAttention(4, 2, kdim=2, vdim=2)
    plan = make(nn.Sequential(attention), {"op_types": ["MultiheadAttention"], **RATIO})

    assert [target.target for target in plan] == [
        "q_proj_weight",
        "k_proj_weight",
        "v_proj_weight",
    ]
    assert [str(one) for one in plan.skipped] == [
        f"0.in_proj_weight is skipped: {NONE_THERE}",
        f"0.in_proj_bias is skipped: it follows in_proj_weight, and {NONE_THERE}",
    ]


def test_a_lazy_module_that_has_seen_a_batch_is_planned(make):
    model = nn.Sequential(nn.LazyLinear(3))
    model(torch.zeros(1, 2))

    assert kinds(make(model, {"op_types": ["Linear"], **RATIO})) == [
        ("weight", "parameter", (3, 2)),
        ("bias", "parameter", (3,)),
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_module_elsewhere_in_the_model_does_no_harm(make):
    model = nn.Sequential(torch.jit.script(nn.Linear(2, 2)), nn.Linear(2, 2))

    assert [t.name for t in make(model, {"op_names": ["1"], **RATIO})] == ["1.weight", "1.bias"]


def test_a_forward_that_takes_self_among_all_arguments_has_any_input(make):
    class Open(nn.Module):
        def forward(*everything):
            return everything[1]

    plan = make(nn.Sequential(Open()), {"op_names": ["0"], "target_names": ["_input_2"], **RATIO})

    assert plan.targets[0].target == "_input_2"


def test_an_input_by_number_and_by_name_is_one_target(make, holder):
    names = ["_input_0", "_input_x"]
    plan = make(holder, {"op_names": ["0"], "target_names": names, **RATIO})

    assert [target.target for target in plan] == ["_input_0"]


def test_the_first_input_in_both_its_spellings_is_one_target(make, holder):
    names = ["_input_", "_input_0"]
    plan = make(holder, {"op_names": ["0"], "target_names": names, **RATIO})

    assert [target.target for target in plan] == ["_input_"]


def test_meta_tensors_are_planned_by_shape(make):
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(2, 3, 4))

    assert kinds(make(model, {"op_types": ["Conv2d"], **RATIO})) == [
        ("weight", "parameter", (3, 2, 4, 4)),
        ("bias", "parameter", (3,)),
    ]


def test_a_tied_parameter_is_one_target_with_all_its_names(make, linears):
    model = linears(3)
    model[2].weight = model[0].weight
    plan = make(model, {"op_types": ["Linear"], **RATIO})

    assert [(target.name, target.shared_with) for target in plan] == [
        ("0.weight", ("2.weight",)),
        ("1.weight", ()),
    ]


def test_a_tied_parameter_that_is_cut_in_two_ways_is_told(make):
    model = nn.Sequential(nn.Embedding(4, 6), nn.Linear(6, 4, bias=False))
    model[1].weight = model[0].weight
    plan = make(model, {"op_types": ["Embedding", "Linear"], **RATIO}, algorithm="channel")

    assert [target.blocks.size for target in plan] == [(-1, 1)]
    assert plan.hints == (
        "pruning.config_list[0]: 1.weight is the tensor of 0.weight and is planned once, as "
        "0.weight",
    )


def test_a_tied_buffer_is_one_target_with_all_its_names(make):
    model = nn.Sequential(Holder(), Holder())
    model[1].scores = model[0].scores
    plan = make(model, {"op_names_re": ["."], "target_names": ["scores"], **RATIO})

    assert [(target.name, target.shared_with) for target in plan] == [("0.scores", ("1.scores",))]


def test_a_parameter_tied_inside_one_module_is_one_target(make):
    model = nn.Sequential(nn.MultiheadAttention(4, 2, kdim=2, vdim=2))
    model[0].v_proj_weight = model[0].k_proj_weight
    plan = make(model, {"op_types": ["MultiheadAttention"], **RATIO})

    assert [(target.target, target.shared_with) for target in plan] == [
        ("q_proj_weight", ()),
        ("k_proj_weight", ("0.v_proj_weight",)),
    ]


def test_a_shared_module_lists_its_other_names(make):
    layer = nn.Linear(2, 2, bias=False)
    model = nn.ModuleDict({"first": layer, "second": layer})
    plan = make(model, {"op_types": ["Linear"], "target_names": ["weight", "_output_"], **RATIO})

    assert [(target.name, target.shared_with) for target in plan] == [
        ("first.weight", ("second.weight",)),
        ("first._output_", ("second._output_",)),
    ]


def test_an_aligned_output_needs_no_algorithm(make, net):
    follow = {"align": {"target_name": "weight", "dims": [0]}}
    entry = {"op_names": ["conv"], **RATIO, "target_settings": {"_output_": follow}}
    plan = make(net, entry, algorithm="choosy")

    assert [target.target for target in plan] == ["weight", "bias", "_output_"]
