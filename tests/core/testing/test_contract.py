"""What every kind of plugin must meet, and how contracts are run and reported."""

import pytest
from messages.plugins import options_are_open

import tersely
from tersely.testing import (
    CheckResult,
    Contract,
    ContractError,
    LossContract,
    check_loss,
    contract_results,
)

SUMMARY = "The descriptor has a one-line summary"
OPTIONS = "The options schema is a closed JSON Schema that accepts the options under test"
FACE = "Importing the package that registers the object does not import torch"
WEIGHT = {
    "type": "object",
    "properties": {"weight": {"type": "number"}},
    "additionalProperties": False,
}


@pytest.fixture
def found(register, failures):
    """What is wrong with the good loss when it is described in some way and made with options."""

    def found(made_with=None, **described):
        return failures(LossContract(register("loss", "good", **described), made_with or {}))

    return found


def test_a_good_plugin_passes(register):
    check_loss(register("loss", "good", options=WEIGHT), options={"weight": 2})


def test_results_come_in_the_order_of_definition_what_all_kinds_share_first(register):
    results = contract_results(LossContract(register("loss", "good"), {}))

    assert [result.name for result in results] == [
        SUMMARY,
        OPTIONS,
        "Every example of the options schema is valid and creates the object",
        "The code reads every option and has the same defaults as the options schema",
        "The code does not catch KeyboardInterrupt",
        "Using it prints nothing and changes neither its options nor process-wide settings",
        FACE,
        "Options that name model inputs or parts of the batch exist in the options schema",
        "The state of a loss is saved with the session and holds no graph",
        "Every parameter that a loss learns gets a finite gradient",
        "The loss is a finite 0-dim float tensor",
        "The student gets a finite gradient that is not zero everywhere",
        "A loss that compares with a teacher depends on the teacher",
        "Student and teacher tensors are not modified",
        "The same pair gives the same loss and leaves the global random state unchanged",
        "A student that equals its teacher gets a finite loss and a finite gradient",
        "Features that are zero for one sample or for all give finite results",
        "Pairs in bfloat16 and float16 give finite results",
        "The memory layout of features does not change the loss",
        "Features a hundred times as large, as logits can be, give finite results",
        "A student that equals its teacher has the lowest loss",
        "No tensor of a batch is kept after the loss is released",
        "The loss does not grow with the batch size",
    ]
    assert results[0] == CheckResult(SUMMARY, passed=True)


@pytest.mark.parametrize(
    ("summary", "message"),
    [
        (" ", "the descriptor's summary is empty"),
        ("One.\nTwo.", "the descriptor's summary has several lines"),
    ],
)
def test_a_summary_is_one_line(found, summary, message):
    assert found(summary=summary) == {SUMMARY: message}


def test_options_are_closed(found):
    assert found(options={"type": "object"}) == {OPTIONS: options_are_open()}


@pytest.mark.parametrize("key", ["additionalProperties", "unevaluatedProperties"])
def test_options_may_be_closed_in_either_way(found, key):
    assert found(options={"type": "object", key: False}) == {}


def test_options_accept_what_the_object_is_made_with(found):
    message = found({"weight": "much"}, options=WEIGHT)[OPTIONS]

    assert (
        message == "the options schema rejects {'weight': 'much'}: 'much' is not of type 'number'"
    )


def test_options_are_a_json_schema(registry, failures):
    # The registry refuses such a descriptor, so the check is asked directly.
    class Odd(Contract):
        kind = "losses"

        @property
        def info(self):
            return tersely.LossInfo(
                name="odd",
                implementation="contract_samples.losses:good",
                summary="Odd.",
                options={"type": "nothing", "additionalProperties": False},
            )

    with pytest.raises(ContractError) as caught:
        Odd("odd").check_options_schema()

    assert str(caught.value) == (
        "options is not a valid JSON Schema (2020-12): 'nothing' is not valid under any of the given schemas"
    )


def test_a_face_imports_no_torch(found):
    assert found(implementation="heavy_samples:SUM")[FACE] == (
        "importing heavy_samples imports torch; import torch in the algorithm's module only, so "
        "that listing and validation stay fast"
    )


def test_a_face_can_be_imported_in_a_new_process(found):
    lines = found(implementation="missing_samples:good")[FACE].splitlines()

    assert lines[0] == "importing missing_samples fails in a new process:"
    assert lines[-1] == "ModuleNotFoundError: No module named 'missing_samples'"


def test_a_failed_contract_is_one_error_with_every_check(register):
    name = register("loss", "good", summary="", options={"type": "object"})
    with pytest.raises(ContractError) as caught:
        check_loss(name)

    assert str(caught.value) == (
        "sample fails 2 checks of its contract:\n"
        f"  {SUMMARY}: the descriptor's summary is empty\n"
        f"  {OPTIONS}: {options_are_open()}"
    )


def test_a_contract_error_is_an_assertion_error():
    assert issubclass(ContractError, AssertionError)
    assert issubclass(ContractError, tersely.TerselyError)


def test_an_unknown_name_is_told_as_everywhere():
    with pytest.raises(tersely.UnknownPluginError):
        check_loss("nothing")


def test_what_a_plugin_raises_is_a_finding_with_its_type(register):
    class Raising(Contract):
        kind = "losses"

        def check_something(self):
            """Something holds."""
            raise KeyError("gone")

    results = contract_results(Raising(register("loss", "good")))

    assert results[-1] == CheckResult("Something holds", passed=False, message="KeyError: 'gone'")


def test_a_test_suite_may_call_single_checks(register):
    contract = LossContract(register("loss", "unreduced"), {})

    contract.check_determinism()
    with pytest.raises(ContractError):
        contract.check_scalar()


def test_a_qualified_name_can_be_checked(register):
    register("loss", "good")

    check_loss("samples-sample:sample")
