"""What plugins implement: public, typed protocols and abilities, and the values they receive.

Names resolve on first use (PEP 562), so that importing `tersely` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tersely.contracts.abilities import Ability as Ability
    from tersely.contracts.abilities import ObservesInputs as ObservesInputs
    from tersely.contracts.abilities import ObservesOutputs as ObservesOutputs
    from tersely.contracts.abilities import Optimizes as Optimizes
    from tersely.contracts.abilities import Penalizes as Penalizes
    from tersely.contracts.abilities import Sequential as Sequential
    from tersely.contracts.curvature import Curvature as Curvature
    from tersely.contracts.curvature import ObservesCurvature as ObservesCurvature
    from tersely.contracts.exporter import IntegerWeight as IntegerWeight
    from tersely.contracts.exporter import RunsExport as RunsExport
    from tersely.contracts.loss import StatefulLoss as StatefulLoss
    from tersely.contracts.ordering import OrdersInputs as OrdersInputs
    from tersely.contracts.pruner import Grows as Grows
    from tersely.contracts.pruner import Learns as Learns
    from tersely.contracts.pruner import MakesNewScores as MakesNewScores
    from tersely.contracts.pruner import ObservesGradients as ObservesGradients
    from tersely.contracts.pruner import ScoresBlocks as ScoresBlocks
    from tersely.contracts.pruner import Solves as Solves
    from tersely.contracts.quantized_forward import ClipsGradients as ClipsGradients
    from tersely.contracts.quantized_forward import LearnsScales as LearnsScales
    from tersely.contracts.quantized_forward import OptimizesByName as OptimizesByName
    from tersely.contracts.quantized_forward import RoundsAtRandom as RoundsAtRandom
    from tersely.contracts.quantized_forward import Simulates as Simulates
    from tersely.contracts.quantized_grids import UsesFloatZeroPoints as UsesFloatZeroPoints
    from tersely.contracts.quantized_grids import UsesLevels as UsesLevels
    from tersely.contracts.quantized_weights import ChangesAfterStep as ChangesAfterStep
    from tersely.contracts.quantized_weights import CorrectsBias as CorrectsBias
    from tersely.contracts.quantized_weights import Equalizes as Equalizes
    from tersely.contracts.quantized_weights import SolvesWeights as SolvesWeights
    from tersely.contracts.quantizer import ChoosesPerCall as ChoosesPerCall
    from tersely.contracts.quantizer import FollowsTraining as FollowsTraining
    from tersely.contracts.quantizer import MergesObservations as MergesObservations
    from tersely.contracts.quantizer import ObservesRange as ObservesRange
    from tersely.contracts.regrowing import ObservesDenseGradients as ObservesDenseGradients
    from tersely.contracts.regrowing import RegrowsFromZero as RegrowsFromZero
    from tersely.contracts.settings import Align as Align
    from tersely.contracts.settings import DistillationSetting as DistillationSetting
    from tersely.contracts.settings import PruningSetting as PruningSetting
    from tersely.contracts.settings import QuantizationSetting as QuantizationSetting
    from tersely.contracts.whole_model import ScoresModel as ScoresModel
    from tersely.contracts.whole_model import WholeModel as WholeModel

_WHERE = {
    "Ability": "abilities",
    "Align": "settings",
    "ChangesAfterStep": "quantized_weights",
    "ChoosesPerCall": "quantizer",
    "ClipsGradients": "quantized_forward",
    "CorrectsBias": "quantized_weights",
    "Curvature": "curvature",
    "DistillationSetting": "settings",
    "Equalizes": "quantized_weights",
    "FollowsTraining": "quantizer",
    "Grows": "pruner",
    "IntegerWeight": "exporter",
    "Learns": "pruner",
    "LearnsScales": "quantized_forward",
    "MakesNewScores": "pruner",
    "MergesObservations": "quantizer",
    "ObservesCurvature": "curvature",
    "ObservesDenseGradients": "regrowing",
    "ObservesGradients": "pruner",
    "ObservesInputs": "abilities",
    "ObservesOutputs": "abilities",
    "ObservesRange": "quantizer",
    "Optimizes": "abilities",
    "OptimizesByName": "quantized_forward",
    "OrdersInputs": "ordering",
    "Penalizes": "abilities",
    "PruningSetting": "settings",
    "QuantizationSetting": "settings",
    "RegrowsFromZero": "regrowing",
    "RoundsAtRandom": "quantized_forward",
    "RunsExport": "exporter",
    "ScoresBlocks": "pruner",
    "ScoresModel": "whole_model",
    "Sequential": "abilities",
    "Simulates": "quantized_forward",
    "Solves": "pruner",
    "SolvesWeights": "quantized_weights",
    "StatefulLoss": "loss",
    "UsesFloatZeroPoints": "quantized_grids",
    "UsesLevels": "quantized_grids",
    "WholeModel": "whole_model",
}

__all__ = [*sorted(_WHERE)]  # noqa: PLE0604  # names are strings


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'tersely.contracts' has no attribute {name!r}")
    value = getattr(import_module(f"tersely.contracts.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
