"""What holds for every loss that compares: shapes, precision, gradients, and batches that have little to say."""

import pytest
import torch
from messages.sessions import LINEAR_PROJECTION

import tersely

NAMES = [
    name
    for name in tersely.registry().losses.names()
    if tersely.registry().losses.record(name).distribution == "tersely-distillation"
    and tersely.registry().losses.info(name).needs == "teacher"
]
BETWEEN_SAMPLES = ("probabilistic", "relational", "similarity_preserving")
ONE_SHAPE = [name for name in NAMES if name not in (*BETWEEN_SAMPLES, "attention_transfer")]
SHAPES = [(4, 3), (3, 2, 2), (3, 2, 1, 2)]


@pytest.fixture(params=NAMES)
def loss(request):
    return tersely.registry().losses[request.param]


def pair(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(shape, generator=generator, dtype=torch.float64)
    teacher = torch.randn(shape, generator=generator, dtype=torch.float64)
    return student.to(dtype).requires_grad_(), teacher.to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_is_that_of_the_loss(loss, shape):
    student, teacher = pair(*shape)

    assert torch.autograd.gradcheck(lambda tensor: loss(tensor, teacher), student)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_falls_along_its_gradient(loss, shape):
    student, teacher = pair(*shape)
    before = loss(student, teacher)
    (gradient,) = torch.autograd.grad(before, student)

    after = loss(student - 1e-4 * gradient / gradient.norm(), teacher)

    assert after.item() < before.item()


DEGENERATE = {
    "zeros": torch.zeros(4, 6),
    "equal numbers": torch.full((4, 6), 3.0),
    "equal samples": torch.tensor([[1.0, -2.0, 0.5, 3.0, 0.1, -0.7]]).expand(4, 6),
    "opposite samples": torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]).expand(4, 6),
    "tiny": torch.eye(4, 6) * 1e-30,
    "huge": torch.eye(4, 6) * 1e15,
}


@pytest.mark.parametrize("samples", DEGENERATE.values(), ids=DEGENERATE)
@pytest.mark.parametrize("relation", ["any", "same", "opposite", "zeros"])
def test_degenerate_batches_give_finite_losses_and_gradients(loss, samples, relation):
    student = samples.clone().requires_grad_()
    teachers = {"any": pair(4, 6, dtype=torch.float32)[1], "same": samples.clone()}
    teachers |= {"opposite": -samples, "zeros": torch.zeros(4, 6)}

    found = loss(student, teachers[relation])
    (gradient,) = torch.autograd.grad(found, student)

    assert found.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("shape", [(1, 4), (1, 3, 5), (1, 2, 3, 3)])
def test_a_batch_of_one_gives_a_finite_loss_and_gradient(loss, shape):
    student, teacher = pair(*shape)

    found = loss(student, teacher)
    (gradient,) = torch.autograd.grad(found, student)

    assert found.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", BETWEEN_SAMPLES)
def test_a_batch_of_one_has_no_relations(name):
    student, teacher = pair(1, 4)

    found = tersely.registry().losses[name](student, teacher)
    (gradient,) = torch.autograd.grad(found, student)

    assert found.item() == 0.0
    assert not gradient.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("teacher_dtype", [torch.bfloat16, torch.float32])
def test_half_precision_is_compared_in_float32(loss, dtype, teacher_dtype):
    student, teacher = pair(4, 3, 8, dtype=torch.float32)
    student, teacher = student.detach().to(dtype).requires_grad_(), teacher.to(teacher_dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(student, teacher)
    (gradient,) = torch.autograd.grad(found, student)

    assert found.dtype == torch.float32
    assert gradient.dtype == dtype
    assert torch.equal(found, loss(student.float(), teacher.float()))


def test_a_double_on_either_side_is_compared_in_float64(loss):
    student, teacher = pair(4, 6)

    assert loss(student.float(), teacher).dtype == torch.float64
    assert loss(student, teacher.float()).dtype == torch.float64


def test_a_teacher_is_its_own_best_student(loss):
    # One minus a correlation, and a cosine, are rounded.
    student, teacher = pair(4, 6)

    assert loss(teacher, teacher).item() == pytest.approx(0.0, abs=1e-12)
    assert loss(student, teacher).item() > 0.01


@pytest.mark.parametrize("name", ONE_SHAPE)
def test_another_width_is_refused_with_both_shapes_and_a_way_out(name):
    with pytest.raises(ValueError, match=rf"^{name} compares .* of one shape") as caught:
        tersely.registry().losses[name](torch.zeros(2, 5, 3), torch.zeros(2, 5, 4))

    assert str(caught.value).partition(": ")[2] == (
        f"the student's is (2, 5, 3), the teacher's is (2, 5, 4); {LINEAR_PROJECTION}, 3, to "
        "the teacher's, 4"
    )


@pytest.mark.parametrize("name", ONE_SHAPE)
@pytest.mark.parametrize(("student", "teacher"), [((2, 3), (1, 3)), ((2, 3), (2, 3, 1))])
def test_another_shape_is_refused_rather_than_broadcast(name, student, teacher):
    with pytest.raises(ValueError, match=rf"^{name} compares ") as caught:
        tersely.registry().losses[name](torch.zeros(student), torch.zeros(teacher))

    assert str(caught.value).partition(": ")[2] == (
        f"the student's is {student}, the teacher's is {teacher}"
    )


@pytest.mark.parametrize("name", ["cosine", "decoupled_kl", "correlation"])
def test_a_tensor_without_features_beside_its_batch_is_refused(name):
    with pytest.raises(ValueError, match=rf"^{name} compares .*\(batch, \.\.\., ") as caught:
        tersely.registry().losses[name](torch.zeros(3), torch.zeros(3))

    assert str(caught.value).endswith("the student's is (3,), the teacher's is (3,)")


def test_kl_of_a_single_number_is_refused():
    with pytest.raises(ValueError, match=r"^kl compares logits of one shape") as caught:
        tersely.registry().losses["kl"](torch.tensor(1.0), torch.tensor(1.0))

    assert str(caught.value).endswith("the student's is (), the teacher's is ()")
