"""The contract of exporters passes a good one; test_mistakes.py has what it finds."""

import pytest

from tersely.testing import ContractError, ExporterContract, check_exporter


@pytest.fixture
def contract(register):
    def contract(sample, **described):
        return ExporterContract(register("exporter", sample, suffix=".npz", **described))

    return contract


def test_a_good_exporter_passes(contract):
    check_exporter(contract("Arrays").name)


def test_what_check_overlooks_is_named_by_the_case_and_the_difference(contract):
    with pytest.raises(
        ContractError,
        match=r"masked weights and int8 weights: check\(\) also accepts them for a model with "
        r"another mask",
    ):
        contract("DropsMasks").check_notices()


def test_factors_of_inputs_that_are_not_written_are_noticed(contract):
    with pytest.raises(
        ContractError,
        match=r"weights whose inputs have factors: check\(\) also accepts them for a model with "
        r"another set of factors",
    ):
        contract("DropsFactors").check_notices()


def test_a_format_that_promises_no_bytes_may_write_dates(contract):
    contract("Dates", is_reproducible=False).check_replaces()
