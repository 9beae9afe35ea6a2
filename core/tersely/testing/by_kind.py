"""The contract of each kind of plugin object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tersely.testing.contract import Contract
from tersely.testing.exporters.contract import ExporterContract
from tersely.testing.granularity import GranularityContract
from tersely.testing.losses.contract import LossContract
from tersely.testing.pruners.contract import PrunerContract
from tersely.testing.quantizers.contract import QuantizerContract
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
