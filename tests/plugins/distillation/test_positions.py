"""Logits with classes in other dimensions, padded positions, and feature maps of other channels."""

import copy
import io

import pytest
import torch
from messages.planning import NO_SUCH_ARGUMENT
from torch import nn
from torch.nn import functional

import tersely
from tersely.planning.resolve import PlanWarning

LOSSES = ["kl", "decoupled_kl", "correlation"]


def loss_of(name):
    return tersely.registry().losses[name]


def logits(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("shape", "dim"), [((2, 5, 7), 1), ((2, 5, 6, 7), 1), ((2, 6, 5, 7), -2)])
def test_the_dimension_of_the_classes_is_as_good_as_moving_it_to_the_end(name, shape, dim):
    student, teacher = logits(*shape), logits(*shape, seed=1)

    found = loss_of(name)(student, teacher, dim=dim)

    wanted = loss_of(name)(student.movedim(dim, -1), teacher.movedim(dim, -1))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_padded_positions_count_as_if_they_were_not_there(name, dtype):
    student, teacher = logits(2, 4, 5).requires_grad_(), logits(2, 4, 5, seed=1)
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]]).to(dtype)

    found = loss_of(name)(student, teacher, mask=mask)
    found.backward()

    left = mask.bool()
    assert torch.equal(found, loss_of(name)(student[left], teacher[left]))
    assert not student.grad[~left].any()


@pytest.mark.parametrize("name", LOSSES)
def test_padding_alone_has_no_loss_and_gradients_of_zero(name):
    student = logits(2, 4, 5).requires_grad_()

    found = loss_of(name)(student, logits(2, 4, 5, seed=1), mask=torch.zeros(2, 4))
    found.backward()

    assert found.item() == 0
    assert torch.equal(student.grad, torch.zeros(2, 4, 5))


def test_a_mask_of_a_map_goes_with_the_dimension_of_the_classes():
    student, teacher = logits(2, 5, 3, 4), logits(2, 5, 3, 4, seed=1)
    mask = logits(2, 3, 4, seed=2) > 0

    found = loss_of("kl")(student, teacher, dim=1, mask=mask)

    rows = [one.movedim(1, -1)[mask] / 2 for one in (student, teacher)]
    each = functional.kl_div(rows[0].log_softmax(-1), rows[1].softmax(-1), reduction="none").sum(-1)
    assert found.item() == pytest.approx(4 * each.mean().item(), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_masks_and_dimensions_that_do_not_fit_are_refused(name):
    student = logits(2, 4, 5)

    with pytest.raises(
        ValueError, match=rf"^{name} has a mask of shape \(2, 5\) for positions of "
    ):
        loss_of(name)(student, student, mask=torch.ones(2, 5))
    for dim in (0, 3, -3, -4):
        with pytest.raises(ValueError, match=rf"^{name} has dim {dim} for classes, and the logits"):
            loss_of(name)(student, student, dim=dim)


class Tokens(nn.Module):
    """A language model's shape of input and output."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(10, 4), nn.Linear(4, 6)

    def forward(self, input_ids, attention_mask=None):
        return self.head(self.embed(input_ids))


def taught(options):
    torch.manual_seed(0)
    student, teacher = Tokens(), Tokens()
    entry = {"op_names": ["head"], "apply_method": {"kl": options}}
    return student, teacher, tersely.distill(student, [entry], teacher=teacher)


IDS = torch.tensor([[1, 2, 3, 0], [4, 0, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])


@pytest.mark.parametrize("call", ["position", "keyword"])
def test_the_loss_of_a_session_leaves_out_what_the_models_mask_marks(call):
    student, teacher, session = taught({"mask": "attention_mask"})

    if call == "position":
        found = student(IDS, MASK)
    else:
        found = student(input_ids=IDS, attention_mask=MASK)
    session.teacher_forward(IDS, MASK)
    loss = session.loss()

    left = MASK.bool()
    wanted = loss_of("kl")(found[left], teacher(IDS)[left])
    assert torch.equal(loss, wanted)


def test_a_batch_of_evaluation_leaves_the_mask_of_training_alone():
    student, teacher, session = taught({"mask": "attention_mask"})
    found = student(IDS, MASK)
    session.teacher_forward(IDS, MASK)
    with torch.no_grad():
        student(IDS, torch.ones_like(MASK))

    left = MASK.bool()
    assert torch.equal(session.loss(), loss_of("kl")(found[left], teacher(IDS)[left]))


def test_a_call_without_the_mask_says_so():
    student, _, session = taught({"mask": "attention_mask"})
    student(IDS)
    session.teacher_forward(IDS)

    with pytest.raises(tersely.SessionError) as caught:
        session.loss()

    assert str(caught.value) == (
        "head._output_ has option 'mask' of kl, and the model was not called with "
        "'attention_mask' since the last loss; pass it, or leave the option out"
    )


def test_a_mask_that_the_model_does_not_take_is_a_plan_error():
    with pytest.raises(tersely.PlanError) as caught:
        taught({"mask": "attention"})

    assert str(caught.value) == (
        "distillation.config_list[0]: head._output_: option 'mask' of kl names the model's "
        f"input 'attention', and {NO_SUCH_ARGUMENT} input_ids, attention_mask"
    )


def test_a_model_whose_mask_is_tapped_is_copied_saved_and_given_back():
    student, _, session = taught({"mask": "attention_mask"})
    student(IDS, MASK)
    torch.save(copy.deepcopy(student), io.BytesIO())

    session.detach()

    assert type(student) is Tokens
    assert not student._forward_pre_hooks


CONVOLUTIONS = {
    "Conv1d": (nn.Conv1d(3, 5, 1), (2, 3, 7)),
    "Conv2d": (nn.Conv2d(3, 5, 1), (2, 3, 6, 7)),
    "ConvTranspose2d": (nn.ConvTranspose2d(3, 5, 1), (2, 3, 6, 7)),
    "BatchNorm2d": (nn.BatchNorm2d(3), (2, 3, 6, 7)),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("name", ["kl", "decoupled_kl", "correlation"])
def test_logits_of_maps_without_dim_are_a_warning(kind, name):
    model = nn.Sequential(copy.deepcopy(CONVOLUTIONS[kind][0]))
    entry = {"op_names": ["0"], "apply_method": name}

    with pytest.warns(PlanWarning) as caught:
        tersely.plan(model, {"distillation": {"config_list": [entry]}})

    assert [str(one.message) for one in caught] == [
        f"distillation.config_list[0]: 0._output_: {name} takes the last dimension for classes, "
        f"which holds positions of a {kind}; write apply_method: {{{name}: {{dim: 1}}}}"
    ]


@pytest.mark.parametrize(
    ("module", "loss"),
    [
        (nn.Conv2d(3, 5, 1), {"kl": {"dim": 1}}),
        (nn.Conv2d(3, 5, 1), {"kl": {"dim": -1}}),
        (nn.Conv2d(3, 5, 1), "mse"),
        (nn.Linear(3, 5), "kl"),
        (nn.BatchNorm1d(3), "kl"),
    ],
)
def test_no_warning_where_the_dimension_is_stated_or_not_in_doubt(module, loss):
    entry = {"op_names": ["0"], "apply_method": loss}

    tersely.plan(nn.Sequential(module), {"distillation": {"config_list": [entry]}})


def test_a_session_of_a_segmentation_head_softens_over_classes():
    torch.manual_seed(0)
    student, teacher = nn.Sequential(nn.Conv2d(3, 5, 1)), nn.Sequential(nn.Conv2d(3, 5, 1))
    inputs = torch.randn(2, 3, 6, 7)
    entry = {"op_names": ["0"], "apply_method": {"kl": {"dim": 1}}}
    session = tersely.distill(student, [entry], teacher=teacher)

    found = student(inputs)
    session.teacher_forward(inputs)

    wanted = functional.kl_div(
        (found / 2).log_softmax(1), (teacher(inputs) / 2).softmax(1), reduction="sum"
    )
    assert session.loss().item() == pytest.approx(wanted.item() * 4 / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [(nn.Conv1d, (2, 3, 8)), (nn.Conv2d, (2, 3, 4, 8)), (nn.Conv3d, (2, 3, 2, 4, 8))],
)
def test_channels_are_mapped_to_the_teachers(kind, shape):
    student, teacher = nn.Sequential(kind(3, 4, 1)), nn.Sequential(kind(3, 6, 1))
    entry = {"op_names": ["0"], "projection": "conv1x1"}
    session = tersely.distill(student, [entry], teacher=teacher)
    inputs = logits(*shape)

    found = student(inputs)
    session.teacher_forward(inputs)
    loss = session.loss()

    weight, bias = session.parameters()
    assert [tuple(weight.shape), tuple(bias.shape)] == [(6, 4), (6,)]
    mapped = torch.einsum("oc,nc...->no...", weight, found)
    mapped = mapped + bias.reshape(1, 6, *(1,) * (len(shape) - 2))
    assert loss.item() == pytest.approx((mapped - teacher(inputs)).square().mean().item(), rel=1e-5)


def test_maps_of_other_widths_are_no_channels():
    student = nn.Sequential(nn.Conv2d(3, 4, 1, stride=(1, 2)))
    teacher = nn.Sequential(nn.Conv2d(3, 4, 1))
    session = tersely.distill(
        student, [{"op_names": ["0"], "projection": "conv1x1"}], teacher=teacher
    )
    student(torch.randn(2, 3, 4, 8))
    session.teacher_forward(torch.randn(2, 3, 4, 8))

    with pytest.raises(tersely.SessionError, match=r"\(2, 4, 4, 4\).*\(2, 4, 4, 8\)"):
        session.loss()


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_linear_projection_of_maps_is_a_plan_error(kind):
    model = nn.Sequential(copy.deepcopy(CONVOLUTIONS[kind][0]))
    entry = {"op_names": ["0"], "projection": "linear"}

    with pytest.raises(tersely.PlanError) as caught:
        tersely.plan(model, {"distillation": {"config_list": [entry]}})

    assert str(caught.value) == (
        f"distillation.config_list[0]: 0._output_: projection 'linear' maps the last dimension, "
        f"which holds positions of a {kind}; write projection: conv1x1, which maps its channels"
    )


HIDDEN = ["mse", "hint", "l1", "smooth_l1", "cosine"]


@pytest.mark.parametrize("name", HIDDEN)
def test_padded_hidden_states_count_as_if_they_were_not_there(name):
    student, teacher = logits(2, 4, 5).requires_grad_(), logits(2, 4, 5, seed=1)
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])

    found = loss_of(name)(student, teacher, mask=mask)
    found.backward()

    left = mask.bool()
    assert torch.allclose(found, loss_of(name)(student[left], teacher[left]))
    assert not student.grad[~left].any()


@pytest.mark.parametrize("name", HIDDEN)
def test_a_mask_over_the_places_of_a_map_leaves_all_channels_of_a_place_out(name):
    student, teacher = logits(2, 5, 3, 4), logits(2, 5, 3, 4, seed=1)
    mask = logits(2, 3, 4, seed=2) > 0

    found = loss_of(name)(student, teacher, mask=mask)

    rows = (one.movedim(1, -1)[mask] for one in (student, teacher))
    assert torch.allclose(found, loss_of(name)(*rows))


@pytest.mark.parametrize("name", [*HIDDEN, "attention_transfer"])
def test_hidden_states_of_padding_alone_have_no_loss_and_gradients_of_zero(name):
    student = logits(2, 4, 5).requires_grad_()

    found = loss_of(name)(student, logits(2, 4, 5, seed=1), mask=torch.zeros(2, 4))
    found.backward()

    assert found.item() == 0
    assert torch.equal(student.grad, torch.zeros(2, 4, 5))


@pytest.mark.parametrize("name", [*HIDDEN, "attention_transfer"])
def test_a_mask_of_another_shape_than_the_positions_is_an_error_that_names_both(name):
    with pytest.raises(ValueError, match=rf"{name} has a mask of shape \(2, 3\) .* shape \(2, 4\)"):
        loss_of(name)(logits(2, 4, 5), logits(2, 4, 5, seed=1), mask=torch.ones(2, 3))


def test_attention_maps_of_a_text_are_those_without_its_padding():
    student, teacher = logits(1, 6, 5), logits(1, 6, 7, seed=1)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])

    found = loss_of("attention_transfer")(student, teacher, mask=mask)

    assert torch.allclose(found, loss_of("attention_transfer")(student[:, :4], teacher[:, :4]))


@pytest.mark.parametrize("name", HIDDEN)
def test_a_session_compares_padded_texts_like_unpadded_ones(name):
    class Texts(nn.Module):
        def __init__(self, seed):
            super().__init__()
            torch.manual_seed(seed)
            self.layer = nn.Linear(3, 3)

        def forward(self, hidden, attention_mask=None):
            return self.layer(hidden)

    def loss(batch):
        entry = {"op_names": ["layer"], "apply_method": {name: {"mask": "attention_mask"}}}
        student, teacher = Texts(0), Texts(1)
        session = tersely.distill(student, [entry], teacher=teacher)
        student(**batch)
        session.teacher_forward(**batch)
        return session.loss()

    texts = logits(2, 4, 3)
    padded = torch.cat([texts, torch.full((2, 2, 3), 50.0)], dim=1)
    ones = torch.ones(2, 4, dtype=torch.long)
    mask = nn.functional.pad(ones, (0, 2))
    expected = loss({"hidden": texts, "attention_mask": ones})
    assert torch.allclose(loss({"hidden": padded, "attention_mask": mask}), expected)
