"""Compress PyTorch models from one declarative file; every algorithm is a plugin."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from laconic.registry.hookspecs import hookimpl

if TYPE_CHECKING:
    from laconic.abilities import Choose as Choose
    from laconic.abilities import Solution as Solution
    from laconic.affine import choose_qparams as choose_qparams
    from laconic.affine import fake_quantize as fake_quantize
    from laconic.algorithms import DependencyTracer as DependencyTracer
    from laconic.algorithms import Granularity as Granularity
    from laconic.algorithms import Pruner as Pruner
    from laconic.algorithms import PruningTarget as PruningTarget
    from laconic.algorithms import QParams as QParams
    from laconic.algorithms import QuantizationTarget as QuantizationTarget
    from laconic.algorithms import Quantizer as Quantizer
    from laconic.algorithms import SharedChannels as SharedChannels
    from laconic.blocks import Blocks as Blocks
    from laconic.blocks import count_blocks as count_blocks
    from laconic.blocks import expand_blocks as expand_blocks
    from laconic.blocks import reduce_blocks as reduce_blocks
    from laconic.blocks import sum_blocks as sum_blocks
    from laconic.blocks import to_blocks as to_blocks
    from laconic.document.load import load_recipe as load_recipe
    from laconic.document.migrate import migrate as migrate
    from laconic.document.problem import Problem as Problem
    from laconic.document.recipe import Recipe as Recipe
    from laconic.document.schema import schema as schema
    from laconic.errors import AttachError as AttachError
    from laconic.errors import BrokenPluginError as BrokenPluginError
    from laconic.errors import CalibrationError as CalibrationError
    from laconic.errors import ConfigError as ConfigError
    from laconic.errors import LaconicError as LaconicError
    from laconic.errors import PlanError as PlanError
    from laconic.errors import PluginApiError as PluginApiError
    from laconic.errors import PluginConflictError as PluginConflictError
    from laconic.errors import PluginError as PluginError
    from laconic.errors import SessionError as SessionError
    from laconic.errors import SessionFileError as SessionFileError
    from laconic.errors import TrainingError as TrainingError
    from laconic.errors import UnknownPluginError as UnknownPluginError
    from laconic.gram import add_gram as add_gram
    from laconic.gram import damp_gram as damp_gram
    from laconic.gram import inverse_factor as inverse_factor
    from laconic.gram import mirror_gram as mirror_gram
    from laconic.matrices import Layout as Layout
    from laconic.matrices import from_matrices as from_matrices
    from laconic.matrices import input_rows as input_rows
    from laconic.matrices import matrix_layout as matrix_layout
    from laconic.matrices import to_matrices as to_matrices
    from laconic.planning.dependency import auto_dependency_groups as auto_dependency_groups
    from laconic.planning.plan import Plan as Plan
    from laconic.planning.plan import TargetPlan as TargetPlan
    from laconic.planning.resolve import plan as plan
    from laconic.quantizer_abilities import Observer as Observer
    from laconic.quantizer_abilities import QuantizedWeight as QuantizedWeight
    from laconic.ranges import MinMax as MinMax
    from laconic.ranges import block_range as block_range
    from laconic.registry.descriptors import DependencyTracerInfo as DependencyTracerInfo
    from laconic.registry.descriptors import ExporterInfo as ExporterInfo
    from laconic.registry.descriptors import GranularityInfo as GranularityInfo
    from laconic.registry.descriptors import LossInfo as LossInfo
    from laconic.registry.descriptors import ModuleSetting as ModuleSetting
    from laconic.registry.descriptors import PrunerInfo as PrunerInfo
    from laconic.registry.descriptors import QuantizerInfo as QuantizerInfo
    from laconic.registry.descriptors import ScheduleInfo as ScheduleInfo
    from laconic.registry.registry import register_module_setting as register_module_setting
    from laconic.registry.registry import registry as registry
    from laconic.session.oneshot import distill as distill
    from laconic.session.oneshot import prune as prune
    from laconic.session.oneshot import quantize as quantize
    from laconic.session.opening import attach as attach
    from laconic.session.opening import load_session as load_session
    from laconic.session.report import Report as Report
    from laconic.session.session import Session as Session

__version__ = "0.1.0"

_WHERE = {
    "AttachError": "laconic.errors",
    "Blocks": "laconic.blocks",
    "BrokenPluginError": "laconic.errors",
    "CalibrationError": "laconic.errors",
    "Choose": "laconic.abilities",
    "ConfigError": "laconic.errors",
    "DependencyTracer": "laconic.algorithms",
    "DependencyTracerInfo": "laconic.registry.descriptors",
    "ExporterInfo": "laconic.registry.descriptors",
    "Granularity": "laconic.algorithms",
    "GranularityInfo": "laconic.registry.descriptors",
    "LaconicError": "laconic.errors",
    "Layout": "laconic.matrices",
    "LossInfo": "laconic.registry.descriptors",
    "MinMax": "laconic.ranges",
    "ModuleSetting": "laconic.registry.descriptors",
    "Observer": "laconic.quantizer_abilities",
    "Plan": "laconic.planning.plan",
    "PlanError": "laconic.errors",
    "PluginApiError": "laconic.errors",
    "PluginConflictError": "laconic.errors",
    "PluginError": "laconic.errors",
    "Problem": "laconic.document.problem",
    "Pruner": "laconic.algorithms",
    "PrunerInfo": "laconic.registry.descriptors",
    "PruningTarget": "laconic.algorithms",
    "QParams": "laconic.algorithms",
    "QuantizationTarget": "laconic.algorithms",
    "QuantizedWeight": "laconic.quantizer_abilities",
    "Quantizer": "laconic.algorithms",
    "QuantizerInfo": "laconic.registry.descriptors",
    "Recipe": "laconic.document.recipe",
    "Report": "laconic.session.report",
    "ScheduleInfo": "laconic.registry.descriptors",
    "Session": "laconic.session.session",
    "SessionError": "laconic.errors",
    "SessionFileError": "laconic.errors",
    "SharedChannels": "laconic.algorithms",
    "Solution": "laconic.abilities",
    "TargetPlan": "laconic.planning.plan",
    "TrainingError": "laconic.errors",
    "UnknownPluginError": "laconic.errors",
    "add_gram": "laconic.gram",
    "attach": "laconic.session.opening",
    "auto_dependency_groups": "laconic.planning.dependency",
    "block_range": "laconic.ranges",
    "choose_qparams": "laconic.affine",
    "count_blocks": "laconic.blocks",
    "damp_gram": "laconic.gram",
    "distill": "laconic.session.oneshot",
    "expand_blocks": "laconic.blocks",
    "fake_quantize": "laconic.affine",
    "from_matrices": "laconic.matrices",
    "input_rows": "laconic.matrices",
    "inverse_factor": "laconic.gram",
    "load_recipe": "laconic.document.load",
    "load_session": "laconic.session.opening",
    "matrix_layout": "laconic.matrices",
    "migrate": "laconic.document.migrate",
    "mirror_gram": "laconic.gram",
    "plan": "laconic.planning.resolve",
    "prune": "laconic.session.oneshot",
    "quantize": "laconic.session.oneshot",
    "reduce_blocks": "laconic.blocks",
    "register_module_setting": "laconic.registry.registry",
    "registry": "laconic.registry.registry",
    "schema": "laconic.document.schema",
    "sum_blocks": "laconic.blocks",
    "to_blocks": "laconic.blocks",
    "to_matrices": "laconic.matrices",
}

__all__ = ["__version__", "hookimpl", *sorted(_WHERE)]  # noqa: PLE0604  # names are strings


def __getattr__(name: str) -> object:
    # Resolved on first use (PEP 562) so that `import laconic` does not import torch.
    if name not in _WHERE:
        raise AttributeError(f"module 'laconic' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
