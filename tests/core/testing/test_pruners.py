"""The contract of pruners passes a good one and finds every way to break it."""

import pytest
from messages.plugins import SCORES_EXPECTED

import tersely
from tersely.testing import PrunerContract, check_pruner

SCORES = "Scores are finite floats with the shape of the tensor or of its blocks"
SAME = "The same weights give the same scores, from one object and from a new one"
UNTOUCHED = "Scoring does not modify weights, training modes, hooks or requires_grad"
BUDGETS = "Every ratio is met exactly with every granularity"
SAVED = "A session restored from disk has the same masks"
TRAINED = "Training under masks leaves the sparsity unchanged"
RESUMED = "A session saved and restored during training continues bit for bit"
DETACHED = "Detaching restores the dense model bit for bit, including modes, hooks and flags"
COPIED = "A deep copy of the pruned model computes the same"
COMPILED = "torch.compile captures the pruned model as one graph that computes the same"
FINISHED = "The finished model has no instruments and computes the same as the pruned one"


@pytest.fixture
def found(register, failures):
    def found(sample, **described):
        return failures(PrunerContract(register("pruner", sample, **described), {}))

    return found


@pytest.mark.parametrize("default", ["element", "output_channel", "tensor"])
def test_a_good_pruner_passes_whatever_its_default_with_no_granularity_installed(register, default):
    check_pruner(register("pruner", "Good", default_granularity=default))


def test_a_good_pruner_passes_with_one_budget_for_the_whole_model(register):
    register("granularity", "Pairs", name="pairs")

    check_pruner(register("pruner", "Good", default_scope="global"))


def test_a_good_pruner_may_give_its_scores_away(register):
    check_pruner(register("pruner", "Giving"))


def test_a_good_pruner_may_score_stacked_tensors(register):
    check_pruner(register("pruner", "Stacked"))


def test_a_good_pruner_passes_with_options(register):
    power = {"properties": {"power": {"type": "number"}}, "additionalProperties": False}

    check_pruner(register("pruner", "Good", options=power), options={"power": 2})


def test_a_good_pruner_passes_on_installed_granularities(register):
    register("granularity", "Pairs", name="pairs")
    register("granularity", "Indivisible", name="sevens")

    check_pruner(register("pruner", "Good"))


@pytest.mark.parametrize(
    "sample",
    ["Watching", "Feeling", "Regrowing", "Flowing", "Curved", "Sorting", "Learning", "Growing"],
)
def test_a_good_pruner_gets_what_it_needs(register, sample):
    check_pruner(register("pruner", sample))


def test_a_good_pruner_is_made_with_the_first_example_of_its_options(register):
    power = {"properties": {"power": {"type": "number", "minimum": 2}}, "required": ["power"]}
    examples = {"examples": [{"power": 2}, {"power": 3}], "additionalProperties": False}

    check_pruner(register("pruner", "Good", options={**power, **examples}))


def test_an_example_that_the_options_refuse_is_found(register, failures):
    power = {"properties": {"power": {"type": "number"}}, "additionalProperties": False}
    options = {**power, "examples": [{"power": 2}, {"power": "no number"}]}

    found = failures(PrunerContract(register("pruner", "Good", options=options)))

    assert found == {
        "Every example of the options schema is valid and creates the object": (
            "the options schema rejects its own example {'power': 'no number'}: 'no number' is not of type "
            "'number'"
        )
    }


def test_a_good_pruner_may_refuse_a_granularity_for_some_tensors(register):
    register("granularity", "Pairs", name="pairs")

    check_pruner(register("pruner", "Picky"))


@pytest.mark.parametrize(
    ("sample", "check", "message"),
    [
        (
            "WrongShape",
            SCORES,
            "conv.weight in torch.float32: scores have shape (3,), expected one of ((8, 4, 4, 4), "
            "(8, 4, 4, 4))",
        ),
        ("NotFinite", SCORES, "conv.weight in torch.float32: scores are not all finite"),
        (
            "Integer",
            SCORES,
            "conv.weight in torch.float32: scores have dtype torch.int64, expected floats",
        ),
        ("Listed", SCORES, f"conv.weight: {SCORES_EXPECTED}, got list"),
        ("Random", SAME, "conv.weight: two objects with the same options return different scores"),
        ("Counting", SAME, "conv.weight: two calls return different scores"),
        (
            "Keeping",
            SAME,
            "conv.weight: new_scores is set, but the scores share memory with another tensor",
        ),
        ("Writing", UNTOUCHED, "conv.weight was changed"),
        ("Touching", UNTOUCHED, "conv.weight was modified in place"),
        ("Freezing", UNTOUCHED, "requires_grad of conv.weight was changed"),
        ("Littering", DETACHED, "the detached model still has instruments or buffers"),
        ("Locking", COPIED, "TypeError: cannot pickle '_thread.lock' object"),
    ],
)
def test_a_broken_pruner_is_found(found, sample, check, message):
    assert found(sample)[check] == message


def test_a_pruner_that_cannot_score_every_granularity_is_found(register, found):
    register("granularity", "Pairs", name="pairs")

    assert found("ChannelsOnly", default_granularity="output_channel")[BUDGETS].startswith(
        "granularity 'pairs', ratio 0: sample returned scores of shape [8, 1, 1, 1] for conv.weight;"
    )


def test_a_budget_that_a_granularity_fixes_is_checked_at_that_budget(register):
    register("granularity", "Halved", name="halved")

    check_pruner(register("pruner", "Good", granularities=("halved",)))


def test_a_pruner_that_divides_no_weight_by_default_is_found(register, found):
    register("granularity", "Indivisible", name="sevens")

    assert found("Good", default_granularity="sevens")[BUDGETS] == (
        "the default granularity fits none of the weights that were tried"
    )


def test_a_pruner_whose_masks_do_not_stay_is_found(found):
    assert found("Fading")[TRAINED].startswith("the sparsity is {'conv': {'weight': 0.")


def test_a_pruner_that_keeps_things_to_itself_is_found(found):
    assert found("Forgetful")[RESUMED] == "conv.weight: the restored mask differs"


def test_a_pruner_that_cannot_be_made_again_is_found(found):
    assert "RuntimeError: it was made before" in found("MadeOnce")[SAVED]


def test_a_pruner_that_breaks_the_graph_is_found(found):
    assert found("Breaking")[COMPILED].startswith(
        "Unsupported: Call to `torch._dynamo.graph_break()`"
    )


def test_a_pruner_whose_effect_ends_with_the_session_is_found(found):
    assert found("Clinging")[FINISHED].startswith("AssertionError: Tensor-likes are not close!")


def test_a_pruner_that_is_not_there_is_an_unknown_plugin():
    with pytest.raises(tersely.UnknownPluginError):
        check_pruner("nothing")
