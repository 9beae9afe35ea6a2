"""The contract of exporters passes a good one, and finds each mistake by a check that it names."""

import pytest

from tersely.testing import ContractError, ExporterContract, check_exporter

MISTAKES = {
    "OtherIntegers": "check_notices",
    "DropsMasks": "check_notices",
    "ForgetsZeroPoints": "check_running",
    "ScalesReversed": "check_running",
    "RefusesLate": "check_refuses_or_writes",
    "RefusesBySilence": "check_refuses_or_writes",
    "RefusesStrangers": "check_refuses_or_writes",
    "RefusesAll": "check_refuses_or_writes",
    "NotesRefusals": "check_refuses_or_writes",
    "LeavesNotes": "check_files",
    "LeavesHalf": "check_files",
    "OtherEnding": "check_files",
    "WritesEmpty": "check_files",
    "FreezesModel": "check_session_untouched",
    "LeavesEvaluation": "check_session_untouched",
    "RoundsModel": "check_session_untouched",
    "Draws": "check_session_untouched",
    "Dates": "check_replaces",
    "ChecksNothing": "check_result",
    "ReturnsArrays": "check_result",
    "RefusesItself": "check_refuses_or_writes",
    "RemembersFirst": "check_notices",
    "ClaimsLevels": "check_holds",
    "DropsLevels": "check_notices",
}
HOLDS = {"ClaimsLevels": ("levels",), "DropsLevels": ("levels",)}


@pytest.fixture
def contract(register):
    def contract(sample, **described):
        return ExporterContract(register("exporter", sample, suffix=".npz", **described))

    return contract


def test_a_good_exporter_passes(contract):
    check_exporter(contract("Arrays").name)


@pytest.mark.parametrize(("sample", "check"), MISTAKES.items(), ids=list(MISTAKES))
def test_a_mistake_is_found(contract, sample, check):
    broken = contract(sample, holds=HOLDS.get(sample, ()))

    # Whatever the check runs into is a finding of `contract_results`.
    with pytest.raises(Exception) as found:  # noqa: PT011
        getattr(broken, check)()

    assert isinstance(found.value, ContractError) or sample in ("NotesRefusals", "ReturnsArrays")


def test_what_check_overlooks_is_named_by_the_case_and_the_difference(contract):
    with pytest.raises(
        ContractError,
        match=r"masked weights beside int8 ones: check\(\) takes them for those of a model with "
        r"another mask",
    ):
        contract("DropsMasks").check_notices()


def test_a_format_that_promises_no_bytes_may_write_dates(contract):
    contract("Dates", is_reproducible=False).check_replaces()
