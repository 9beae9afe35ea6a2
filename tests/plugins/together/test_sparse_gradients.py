"""Embeddings with `sparse=True`: gradients of rows alone, through masks and rounding."""

import pytest
import torch
from torch import nn

import tersely

WORDS = torch.tensor([[1, 2, 3, 4], [1, 7, 7, 0]])
MOVEMENT = {"warmup_steps": 0, "cooldown_begin_step": 3}


def embedded(*, is_sparse):
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(10, 8, sparse=is_sparse), nn.Linear(8, 4))


def pruning(algorithm, *, options=None, granularity="default"):
    entry = {"op_types": ["Embedding"], "sparse_ratio": 0.5, "granularity": granularity}
    return {"pruning": {"algorithm": algorithm, "options": options or {}, "config_list": [entry]}}


def quantization(algorithm, *, granularity="default"):
    entry = {
        "op_types": ["Embedding"],
        "target_names": ["weight"],
        "granularity": granularity,
        "apply_method": "qat_clamp_round",
    }
    return {"quantization": {"algorithm": algorithm, "config_list": [entry]}}


def trained(recipe, *, is_sparse, is_compressed_first=True):
    model = embedded(is_sparse=is_sparse)
    session = tersely.attach(model, recipe)
    if is_compressed_first:
        session.calibrate([WORDS])
        session.compress()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    for _ in range(4):
        optimizer.zero_grad()
        model(WORDS).square().mean().backward()
        optimizer.step()
        session.step()
    if not is_compressed_first:
        session.compress()
    return model


@pytest.mark.parametrize(
    "recipe",
    [
        pruning("movement", options=MOVEMENT),
        pruning("movement", options=MOVEMENT, granularity=[2, 4]),
        quantization("qat"),
        quantization("qat", granularity=[2, 4]),
        quantization("lsq_plus", granularity="per_channel"),
        quantization("dorefa"),
        {**pruning("level"), **quantization("qat")},
    ],
    ids=["movement", "blocks", "qat", "qat of blocks", "lsq_plus", "dorefa", "both"],
)
def test_rows_alone_train_as_the_whole_gradient_does(recipe):
    sparse = trained(recipe, is_sparse=True).state_dict()

    dense = trained(recipe, is_sparse=False).state_dict()
    assert sparse.keys() == dense.keys()
    for name, tensor in sparse.items():
        torch.testing.assert_close(tensor, dense[name])


def test_taylor_ranks_by_gradients_of_rows_alone():
    recipe = pruning("taylor")

    sparse = trained(recipe, is_sparse=True, is_compressed_first=False)[0].weight

    dense = trained(recipe, is_sparse=False, is_compressed_first=False)[0].weight
    torch.testing.assert_close(sparse, dense)


@pytest.mark.parametrize("algorithm", ["qat", "lsq", "ptq"])
def test_a_sparse_optimizer_still_gets_rows_alone(algorithm):
    model = embedded(is_sparse=True)
    session = tersely.attach(model, quantization(algorithm))
    session.calibrate([WORDS])
    session.compress()
    optimizer = torch.optim.SparseAdam(list(model[0].parameters()))
    before = model[0].weight.detach().clone()

    model(WORDS).square().mean().backward()
    optimizer.step()
    session.step()
    session.detach()

    assert model[0].weight.grad.is_sparse
    assert torch.equal(model[0].weight[5], embedded(is_sparse=True)[0].weight[5])
    assert not torch.equal(model[0].weight[1], before[1])


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # of torch's vmap
def test_torch_func_takes_a_gradient_for_each_sample_of_a_quantized_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    session = tersely.attach(
        model, {"quantization": {"algorithm": "qat", "config_list": [{"op_types": ["Linear"]}]}}
    )
    samples = torch.randn(3, 6)
    session.calibrate([samples])
    session.compress()
    model.eval()

    def loss(parameters, sample):
        return torch.func.functional_call(model, parameters, (sample,)).sum()

    parameters = dict(model.named_parameters())
    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, samples)

    for index, sample in enumerate(samples):
        model.zero_grad()
        model(sample).sum().backward()
        torch.testing.assert_close(found["0.weight"][index], model[0].weight.grad)
