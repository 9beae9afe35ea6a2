"""The whole test suite a plugin needs to start with."""

from tersely.testing import (
    check_exporter,
    check_granularity,
    check_loss,
    check_pruner,
    check_quantizer,
)


def test_the_pruner_keeps_its_contract():
    check_pruner("relative_importance")


def test_the_pruner_that_permutes_keeps_its_contract():
    check_pruner("relative_importance_permuted")


def test_the_granularities_keep_their_contract():
    check_granularity("row_pair")
    check_granularity("one_of_two")


def test_the_quantizer_keeps_its_contract():
    check_quantizer("power_of_two")


def test_the_loss_keeps_its_contract():
    check_loss("log_cosh")


def test_the_exporter_keeps_its_contract():
    check_exporter("arrays")
