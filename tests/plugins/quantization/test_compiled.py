"""Forward and backward of every algorithm compile as one graph and compute the same."""

import pytest
import torch

import tersely


def function_of(name, target, value):
    """What forward does with a value and what is learned, and what is learned."""
    quantizer = tersely.registry().quantizers[name]()
    qparams = quantizer.choose(value.min(), value.max(), target)
    if not hasattr(quantizer, "start"):
        return lambda value: quantizer.simulate(value, qparams, target), []
    statistics = quantizer.observer(target).observe(value, target.blocks.size)
    learned = quantizer.start(qparams, target.evolve(statistics=statistics))

    def run(value, *tensors):
        names = dict(zip(learned, tensors, strict=True))
        return quantizer.learned_values(value, qparams, names, target)

    return run, [tensor.clone().requires_grad_() for tensor in learned.values()]


# torch's tracer makes an instance of torch.autograd.Function, of which torch warns.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("name", ["lsq", "lsq_plus", "dorefa", "bnn"])
@pytest.mark.parametrize("kind", ["parameter", "output"])
def test_it_compiles_as_one_graph(name, kind, make_target):
    torch.compiler.reset()
    value = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    tensor = value.detach() if kind == "parameter" else None
    target = make_target("uint8", "affine", kind=kind, tensor=tensor)
    run, learned = function_of(name, target, value.detach())
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")

    results = [one(value, *learned) for one in (run, compiled)]
    gradients = [torch.autograd.grad(result.sin().sum(), [value, *learned]) for result in results]

    assert torch.equal(*results)
    for eager, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, eager)
