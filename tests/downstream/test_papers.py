"""Every algorithm of a paper passes its contract, with public names alone."""

from pathlib import Path

import tersely
import tersely.testing
from tersely.testing import (
    GranularityContract,
    LossContract,
    PrunerContract,
    QuantizerContract,
    ScheduleContract,
    parametrize,
)

PAPERS = Path(__file__).parent / "papers"
FILES = sorted(PAPERS.glob("*.py"))
CONTRACTS = {
    "pruner": PrunerContract,
    "quantizer": QuantizerContract,
    "granularity": GranularityContract,
    "loss": LossContract,
    "schedule": ScheduleContract,
}


def provided():
    registry = tersely.registry()
    for file in FILES:
        registry.register_file(file)
    found = [
        CONTRACTS[kind](name)
        for record in registry.plugins()
        if record.distribution in {file.name for file in FILES}
        for kind, name in record.provides
    ]
    for file in FILES:
        registry.unregister(file.name)
    return found


@parametrize(*provided())
def test_contract(papers, check):
    check()
