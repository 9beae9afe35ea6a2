"""Contracts that every plugin must meet, to run in a plugin's own test suite.

``check_pruner("name")`` and its siblings run a whole contract and raise one error with
every failed check; `contract_results` returns the result of each check.
"""

from tersely.testing.contract import CheckResult, Contract, ContractError, contract_results
from tersely.testing.exporters.contract import ExporterContract, check_exporter
from tersely.testing.granularity import GranularityContract, check_granularity
from tersely.testing.losses.contract import LossContract, check_loss
from tersely.testing.parametrize import parametrize
from tersely.testing.pruners.contract import PrunerContract, check_pruner
from tersely.testing.quantizers.contract import QuantizerContract, check_quantizer
from tersely.testing.schedule import ScheduleContract, check_schedule

__all__ = [
    "CheckResult",
    "Contract",
    "ContractError",
    "ExporterContract",
    "GranularityContract",
    "LossContract",
    "PrunerContract",
    "QuantizerContract",
    "ScheduleContract",
    "check_exporter",
    "check_granularity",
    "check_loss",
    "check_pruner",
    "check_quantizer",
    "check_schedule",
    "contract_results",
    "parametrize",
]
