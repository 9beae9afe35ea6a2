"""Every algorithm that solves for weights keeps the contract of quantizers and says what it is."""

import pytest

import tersely
from tersely.contracts import ObservesInputs
from tersely.contracts.quantized_weights import CorrectsBias, Equalizes, SolvesWeights
from tersely.contracts.quantizer import MergesObservations
from tersely.testing import check_quantizer

NAMES = ["rtn", "gptq", "awq", "adaround", "smoothquant"]
SOLVERS = NAMES[1:]


@pytest.mark.parametrize("name", NAMES)
def test_a_quantizer_keeps_its_contract(name):
    check_quantizer(name)


def test_smoothquant_keeps_its_contract_when_it_searches():
    check_quantizer("smoothquant", options={"alpha": "auto"})


def test_ptq_keeps_its_contract_when_it_corrects_biases():
    check_quantizer("ptq", options={"bias_correction": True})


@pytest.mark.parametrize("name", SOLVERS)
def test_an_algorithm_that_solves_sees_inputs(name):
    quantizer = tersely.registry().quantizers[name]()
    assert isinstance(quantizer, SolvesWeights)
    assert isinstance(quantizer, ObservesInputs)
    assert tersely.registry().quantizers.info(name).needs == "activations"


@pytest.mark.parametrize("name", ["awq", "smoothquant"])
def test_factors_of_inputs_can_be_shared(name):
    assert isinstance(tersely.registry().quantizers[name](), Equalizes)


def test_only_ranges_are_merged_and_scaled():
    made = {name: tersely.registry().quantizers[name]() for name in NAMES}
    assert [name for name in NAMES if isinstance(made[name], MergesObservations)] == ["smoothquant"]


def test_gptq_and_adaround_go_block_by_block():
    made = {name: tersely.registry().quantizers[name]() for name in NAMES}
    assert [name for name in NAMES if getattr(made[name], "sequential", False)] == [
        "gptq",
        "adaround",
    ]


def test_rtn_needs_no_data_and_takes_activations_as_they_come():
    assert tersely.registry().quantizers.info("rtn").needs == "nothing"
    assert tersely.registry().quantizers["rtn"]().dynamic is True


def test_ptq_observes_inputs_only_to_correct_biases():
    make = tersely.registry().quantizers["ptq"]
    assert not isinstance(make(), (ObservesInputs, CorrectsBias))
    correcting = make(bias_correction=True)
    assert isinstance(correcting, make)
    assert isinstance(correcting, ObservesInputs)
    assert isinstance(correcting, CorrectsBias)
