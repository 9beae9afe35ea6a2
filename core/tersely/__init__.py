"""Compress PyTorch models from one declarative file; every algorithm is a plugin."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from tersely.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from tersely.abilities import Choose as Choose
    from tersely.abilities import Solution as Solution
    from tersely.affine import choose_qparams as choose_qparams
    from tersely.affine import fake_quantize as fake_quantize
    from tersely.algorithms import DependencyTracer as DependencyTracer
    from tersely.algorithms import Granularity as Granularity
    from tersely.algorithms import Pruner as Pruner
    from tersely.algorithms import PruningTarget as PruningTarget
    from tersely.algorithms import QParams as QParams
    from tersely.algorithms import QuantizationTarget as QuantizationTarget
    from tersely.algorithms import Quantizer as Quantizer
    from tersely.algorithms import SharedChannels as SharedChannels
    from tersely.blocks import Blocks as Blocks
    from tersely.blocks import count_blocks as count_blocks
    from tersely.blocks import expand_blocks as expand_blocks
    from tersely.blocks import reduce_blocks as reduce_blocks
    from tersely.blocks import sum_blocks as sum_blocks
    from tersely.blocks import to_blocks as to_blocks
    from tersely.document.load import load_recipe as load_recipe
    from tersely.document.migrate import migrate as migrate
    from tersely.document.problem import Problem as Problem
    from tersely.document.recipe import Recipe as Recipe
    from tersely.document.schema import schema as schema
    from tersely.errors import AttachError as AttachError
    from tersely.errors import BrokenPluginError as BrokenPluginError
    from tersely.errors import CalibrationError as CalibrationError
    from tersely.errors import ConfigError as ConfigError
    from tersely.errors import PlanError as PlanError
    from tersely.errors import PluginApiError as PluginApiError
    from tersely.errors import PluginConflictError as PluginConflictError
    from tersely.errors import PluginError as PluginError
    from tersely.errors import SessionError as SessionError
    from tersely.errors import SessionFileError as SessionFileError
    from tersely.errors import TerselyError as TerselyError
    from tersely.errors import TrainingError as TrainingError
    from tersely.errors import UnknownPluginError as UnknownPluginError
    from tersely.gram import add_gram as add_gram
    from tersely.gram import damp_gram as damp_gram
    from tersely.gram import inverse_factor as inverse_factor
    from tersely.gram import mirror_gram as mirror_gram
    from tersely.matrices import Layout as Layout
    from tersely.matrices import from_matrices as from_matrices
    from tersely.matrices import input_rows as input_rows
    from tersely.matrices import matrix_layout as matrix_layout
    from tersely.matrices import to_matrices as to_matrices
    from tersely.planning.dependency import auto_dependency_groups as auto_dependency_groups
    from tersely.planning.plan import Plan as Plan
    from tersely.planning.plan import TargetPlan as TargetPlan
    from tersely.planning.resolve import plan as plan
    from tersely.quantizer_abilities import Observer as Observer
    from tersely.quantizer_abilities import QuantizedWeight as QuantizedWeight
    from tersely.ranges import MinMax as MinMax
    from tersely.ranges import block_range as block_range
    from tersely.registry.descriptors import DependencyTracerInfo as DependencyTracerInfo
    from tersely.registry.descriptors import ExporterInfo as ExporterInfo
    from tersely.registry.descriptors import GranularityInfo as GranularityInfo
    from tersely.registry.descriptors import LossInfo as LossInfo
    from tersely.registry.descriptors import ModuleSetting as ModuleSetting
    from tersely.registry.descriptors import PrunerInfo as PrunerInfo
    from tersely.registry.descriptors import QuantizerInfo as QuantizerInfo
    from tersely.registry.descriptors import ScheduleInfo as ScheduleInfo
    from tersely.registry.registry import register_module_setting as register_module_setting
    from tersely.registry.registry import registry as registry
    from tersely.session.oneshot import distill as distill
    from tersely.session.oneshot import prune as prune
    from tersely.session.oneshot import quantize as quantize
    from tersely.session.opening import attach as attach
    from tersely.session.opening import load_session as load_session
    from tersely.session.report import Report as Report
    from tersely.session.session import Session as Session

__version__ = "0.1.0"

_WHERE = {
    "AttachError": "tersely.errors",
    "Blocks": "tersely.blocks",
    "BrokenPluginError": "tersely.errors",
    "CalibrationError": "tersely.errors",
    "Choose": "tersely.abilities",
    "ConfigError": "tersely.errors",
    "DependencyTracer": "tersely.algorithms",
    "DependencyTracerInfo": "tersely.registry.descriptors",
    "ExporterInfo": "tersely.registry.descriptors",
    "Granularity": "tersely.algorithms",
    "GranularityInfo": "tersely.registry.descriptors",
    "TerselyError": "tersely.errors",
    "Layout": "tersely.matrices",
    "LossInfo": "tersely.registry.descriptors",
    "MinMax": "tersely.ranges",
    "ModuleSetting": "tersely.registry.descriptors",
    "Observer": "tersely.quantizer_abilities",
    "Plan": "tersely.planning.plan",
    "PlanError": "tersely.errors",
    "PluginApiError": "tersely.errors",
    "PluginConflictError": "tersely.errors",
    "PluginError": "tersely.errors",
    "Problem": "tersely.document.problem",
    "Pruner": "tersely.algorithms",
    "PrunerInfo": "tersely.registry.descriptors",
    "PruningTarget": "tersely.algorithms",
    "QParams": "tersely.algorithms",
    "QuantizationTarget": "tersely.algorithms",
    "QuantizedWeight": "tersely.quantizer_abilities",
    "Quantizer": "tersely.algorithms",
    "QuantizerInfo": "tersely.registry.descriptors",
    "Recipe": "tersely.document.recipe",
    "Report": "tersely.session.report",
    "ScheduleInfo": "tersely.registry.descriptors",
    "Session": "tersely.session.session",
    "SessionError": "tersely.errors",
    "SessionFileError": "tersely.errors",
    "SharedChannels": "tersely.algorithms",
    "Solution": "tersely.abilities",
    "TargetPlan": "tersely.planning.plan",
    "TrainingError": "tersely.errors",
    "UnknownPluginError": "tersely.errors",
    "add_gram": "tersely.gram",
    "attach": "tersely.session.opening",
    "auto_dependency_groups": "tersely.planning.dependency",
    "block_range": "tersely.ranges",
    "choose_qparams": "tersely.affine",
    "count_blocks": "tersely.blocks",
    "damp_gram": "tersely.gram",
    "distill": "tersely.session.oneshot",
    "expand_blocks": "tersely.blocks",
    "fake_quantize": "tersely.affine",
    "from_matrices": "tersely.matrices",
    "input_rows": "tersely.matrices",
    "inverse_factor": "tersely.gram",
    "load_recipe": "tersely.document.load",
    "load_session": "tersely.session.opening",
    "matrix_layout": "tersely.matrices",
    "migrate": "tersely.document.migrate",
    "mirror_gram": "tersely.gram",
    "plan": "tersely.planning.resolve",
    "prune": "tersely.session.oneshot",
    "quantize": "tersely.session.oneshot",
    "reduce_blocks": "tersely.blocks",
    "register_module_setting": "tersely.registry.registry",
    "registry": "tersely.registry.registry",
    "schema": "tersely.document.schema",
    "sum_blocks": "tersely.blocks",
    "to_blocks": "tersely.blocks",
    "to_matrices": "tersely.matrices",
}

__all__ = ["__version__", "hookimpl", *sorted(_WHERE)]  # noqa: PLE0604  # names are strings


def __getattr__(name: str) -> object:
    # Resolved on first use (PEP 562) so that `import tersely` does not import torch.
    if name not in _WHERE:
        raise AttributeError(f"module 'tersely' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
