"""The contract of each kind of plugin object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tersely.testing.contract import Contract
from tersely.testing.exporter import ExporterContract
from tersely.testing.granularity import GranularityContract
from tersely.testing.loss import LossContract
from tersely.testing.pruner import PrunerContract
from tersely.testing.quantizer import QuantizerContract
from tersely.testing.schedule import ScheduleContract

CONTRACTS: Final[Mapping[str, type[Contract]]] = {
    "pruner": PrunerContract,
    "quantizer": QuantizerContract,
    "granularity": GranularityContract,
    "loss": LossContract,
    "schedule": ScheduleContract,
    "exporter": ExporterContract,
}
"""Name of a kind, as in `tersely.registry.kinds.KINDS` -> its contract."""
