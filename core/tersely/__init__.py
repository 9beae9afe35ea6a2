"""Compress PyTorch models from one declarative file; every algorithm is a plugin.

The names in ``__all__``, `tersely.contracts` and `tersely.testing` are public. Every other module
is private and may change in any release.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from tersely.registry.hookspecs import hookimpl, plugin_api
from tersely.version import __version__

if TYPE_CHECKING:
    from tersely.arithmetic.affine import fake_quantize as fake_quantize
    from tersely.arithmetic.blocks import Blocks as Blocks
    from tersely.arithmetic.blocks import count_blocks as count_blocks
    from tersely.arithmetic.blocks import expand_blocks as expand_blocks
    from tersely.arithmetic.blocks import reduce_blocks as reduce_blocks
    from tersely.arithmetic.blocks import sum_blocks as sum_blocks
    from tersely.arithmetic.blocks import to_blocks as to_blocks
    from tersely.arithmetic.gram import add_gram as add_gram
    from tersely.arithmetic.gram import damp_gram as damp_gram
    from tersely.arithmetic.gram import inverse_factor as inverse_factor
    from tersely.arithmetic.gram import mirror_gram as mirror_gram
    from tersely.arithmetic.qparams import QParams as QParams
    from tersely.arithmetic.ranges import MinMax as MinMax
    from tersely.arithmetic.ranges import block_range as block_range
    from tersely.arithmetic.scales import choose_qparams as choose_qparams
    from tersely.contracts.exporter import Exporter as Exporter
    from tersely.contracts.exporter import ExportSource as ExportSource
    from tersely.contracts.exporter import QuantizedActivation as QuantizedActivation
    from tersely.contracts.granularity import Granularity as Granularity
    from tersely.contracts.history import HistoryObserver as HistoryObserver
    from tersely.contracts.history import Observation as Observation
    from tersely.contracts.matrices import Layout as Layout
    from tersely.contracts.matrices import from_matrices as from_matrices
    from tersely.contracts.matrices import input_rows as input_rows
    from tersely.contracts.matrices import matrix_layout as matrix_layout
    from tersely.contracts.matrices import to_matrices as to_matrices
    from tersely.contracts.pruner import Choose as Choose
    from tersely.contracts.pruner import Pruner as Pruner
    from tersely.contracts.pruner import PruningTarget as PruningTarget
    from tersely.contracts.pruner import Solution as Solution
    from tersely.contracts.quantized_weights import QuantizedWeight as QuantizedWeight
    from tersely.contracts.quantizer import Observer as Observer
    from tersely.contracts.quantizer import QuantizationTarget as QuantizationTarget
    from tersely.contracts.quantizer import Quantizer as Quantizer
    from tersely.contracts.target_plan import TargetPlan as TargetPlan
    from tersely.contracts.tracer import ChannelBlocks as ChannelBlocks
    from tersely.contracts.tracer import DependencyTracer as DependencyTracer
    from tersely.contracts.tracer import SharedChannels as SharedChannels
    from tersely.document.builders import DistillationEntry as DistillationEntry
    from tersely.document.builders import PruningEntry as PruningEntry
    from tersely.document.builders import QuantizationEntry as QuantizationEntry
    from tersely.document.load import load_recipe as load_recipe
    from tersely.document.migration.migrate import migrate as migrate
    from tersely.document.presets import preset as preset
    from tersely.document.recipe import Recipe as Recipe
    from tersely.document.schemas.schema import schema as schema
    from tersely.errors import AttachError as AttachError
    from tersely.errors import BenchmarkError as BenchmarkError
    from tersely.errors import BrokenPluginError as BrokenPluginError
    from tersely.errors import CalibrationError as CalibrationError
    from tersely.errors import CompressionWarning as CompressionWarning
    from tersely.errors import ConfigError as ConfigError
    from tersely.errors import ExportError as ExportError
    from tersely.errors import Fix as Fix
    from tersely.errors import MissingExtraError as MissingExtraError
    from tersely.errors import PlacedError as PlacedError
    from tersely.errors import PlanError as PlanError
    from tersely.errors import PluginApiError as PluginApiError
    from tersely.errors import PluginConflictError as PluginConflictError
    from tersely.errors import PluginError as PluginError
    from tersely.errors import Problem as Problem
    from tersely.errors import Refusal as Refusal
    from tersely.errors import SessionError as SessionError
    from tersely.errors import SessionFileError as SessionFileError
    from tersely.errors import TerselyError as TerselyError
    from tersely.errors import TrainingError as TrainingError
    from tersely.errors import UnknownPluginError as UnknownPluginError
    from tersely.exporting.export import Exported as Exported
    from tersely.jobs.finished import load_run as load_run
    from tersely.planning.fusing.auto_in_config_list import auto_fuse_names as auto_fuse_names
    from tersely.planning.groups.dependency import auto_dependency_groups as auto_dependency_groups
    from tersely.planning.plan import Plan as Plan
    from tersely.planning.resolve import plan as plan
    from tersely.registry.descriptors import DependencyTracerInfo as DependencyTracerInfo
    from tersely.registry.descriptors import ExporterInfo as ExporterInfo
    from tersely.registry.descriptors import GranularityInfo as GranularityInfo
    from tersely.registry.descriptors import LossInfo as LossInfo
    from tersely.registry.descriptors import ModuleSetting as ModuleSetting
    from tersely.registry.descriptors import PrunerInfo as PrunerInfo
    from tersely.registry.descriptors import QuantizerInfo as QuantizerInfo
    from tersely.registry.descriptors import ScheduleInfo as ScheduleInfo
    from tersely.registry.experts import experts_setting as experts_setting
    from tersely.registry.registry import register_module_setting as register_module_setting
    from tersely.registry.registry import registry as registry
    from tersely.reporting.measuring.benchmark import benchmark as benchmark
    from tersely.reporting.measuring.timings import Benchmark as Benchmark
    from tersely.reporting.printing.plan_summary import summarize_plan as summarize_plan
    from tersely.reporting.report import Report as Report
    from tersely.searching.sensitivity.analysis import sensitivity as sensitivity
    from tersely.searching.sensitivity.result import Sensitivity as Sensitivity
    from tersely.session.attaching import attach as attach
    from tersely.session.finalizing.restored_rounding import restore_rounding as restore_rounding
    from tersely.session.loading import load_session as load_session
    from tersely.session.loading import load_shrunk as load_shrunk
    from tersely.session.oneshot import distill as distill
    from tersely.session.oneshot import prune as prune
    from tersely.session.oneshot import quantize as quantize
    from tersely.session.session import Session as Session
    from tersely.shrinking.report import Shrunk as Shrunk

_WHERE = {
    "AttachError": "tersely.errors",
    "Benchmark": "tersely.reporting.measuring.timings",
    "BenchmarkError": "tersely.errors",
    "Blocks": "tersely.arithmetic.blocks",
    "BrokenPluginError": "tersely.errors",
    "CalibrationError": "tersely.errors",
    "Choose": "tersely.contracts.pruner",
    "CompressionWarning": "tersely.errors",
    "ConfigError": "tersely.errors",
    "ChannelBlocks": "tersely.contracts.tracer",
    "DependencyTracer": "tersely.contracts.tracer",
    "DependencyTracerInfo": "tersely.registry.descriptors",
    "DistillationEntry": "tersely.document.builders",
    "ExportError": "tersely.errors",
    "ExportSource": "tersely.contracts.exporter",
    "Exported": "tersely.exporting.export",
    "Exporter": "tersely.contracts.exporter",
    "ExporterInfo": "tersely.registry.descriptors",
    "Granularity": "tersely.contracts.granularity",
    "GranularityInfo": "tersely.registry.descriptors",
    "TerselyError": "tersely.errors",
    "Layout": "tersely.contracts.matrices",
    "LossInfo": "tersely.registry.descriptors",
    "MinMax": "tersely.arithmetic.ranges",
    "MissingExtraError": "tersely.errors",
    "ModuleSetting": "tersely.registry.descriptors",
    "HistoryObserver": "tersely.contracts.history",
    "Observation": "tersely.contracts.history",
    "Observer": "tersely.contracts.quantizer",
    "PlacedError": "tersely.errors",
    "Plan": "tersely.planning.plan",
    "PlanError": "tersely.errors",
    "PluginApiError": "tersely.errors",
    "PluginConflictError": "tersely.errors",
    "PluginError": "tersely.errors",
    "Fix": "tersely.errors",
    "Problem": "tersely.errors",
    "Pruner": "tersely.contracts.pruner",
    "PrunerInfo": "tersely.registry.descriptors",
    "PruningEntry": "tersely.document.builders",
    "PruningTarget": "tersely.contracts.pruner",
    "QParams": "tersely.arithmetic.qparams",
    "QuantizationEntry": "tersely.document.builders",
    "QuantizationTarget": "tersely.contracts.quantizer",
    "QuantizedActivation": "tersely.contracts.exporter",
    "QuantizedWeight": "tersely.contracts.quantized_weights",
    "Quantizer": "tersely.contracts.quantizer",
    "QuantizerInfo": "tersely.registry.descriptors",
    "Recipe": "tersely.document.load",
    "Refusal": "tersely.errors",
    "Report": "tersely.reporting.report",
    "ScheduleInfo": "tersely.registry.descriptors",
    "Sensitivity": "tersely.searching.sensitivity.result",
    "Session": "tersely.session.session",
    "SessionError": "tersely.errors",
    "SessionFileError": "tersely.errors",
    "SharedChannels": "tersely.contracts.tracer",
    "Shrunk": "tersely.shrinking.report",
    "Solution": "tersely.contracts.pruner",
    "TargetPlan": "tersely.contracts.target_plan",
    "TrainingError": "tersely.errors",
    "UnknownPluginError": "tersely.errors",
    "add_gram": "tersely.arithmetic.gram",
    "attach": "tersely.session.attaching",
    "auto_fuse_names": "tersely.planning.fusing.auto_in_config_list",
    "auto_dependency_groups": "tersely.planning.groups.dependency",
    "benchmark": "tersely.reporting.measuring.benchmark",
    "block_range": "tersely.arithmetic.ranges",
    "choose_qparams": "tersely.arithmetic.scales",
    "count_blocks": "tersely.arithmetic.blocks",
    "damp_gram": "tersely.arithmetic.gram",
    "distill": "tersely.session.oneshot",
    "expand_blocks": "tersely.arithmetic.blocks",
    "experts_setting": "tersely.registry.experts",
    "fake_quantize": "tersely.arithmetic.affine",
    "from_matrices": "tersely.contracts.matrices",
    "input_rows": "tersely.contracts.matrices",
    "inverse_factor": "tersely.arithmetic.gram",
    "load_recipe": "tersely.document.load",
    "load_run": "tersely.jobs.finished",
    "restore_rounding": "tersely.session.finalizing.restored_rounding",
    "load_session": "tersely.session.loading",
    "load_shrunk": "tersely.session.loading",
    "matrix_layout": "tersely.contracts.matrices",
    "migrate": "tersely.document.migration.migrate",
    "mirror_gram": "tersely.arithmetic.gram",
    "plan": "tersely.planning.resolve",
    "preset": "tersely.document.presets",
    "prune": "tersely.session.oneshot",
    "quantize": "tersely.session.oneshot",
    "reduce_blocks": "tersely.arithmetic.blocks",
    "register_module_setting": "tersely.registry.registry",
    "registry": "tersely.registry.registry",
    "schema": "tersely.document.schemas.schema",
    "sensitivity": "tersely.searching.sensitivity.analysis",
    "summarize_plan": "tersely.reporting.printing.plan_summary",
    "sum_blocks": "tersely.arithmetic.blocks",
    "to_blocks": "tersely.arithmetic.blocks",
    "to_matrices": "tersely.contracts.matrices",
}

__all__ = ["__version__", "hookimpl", "plugin_api", *sorted(_WHERE)]  # noqa: PLE0604  # names are strings


def __getattr__(name: str) -> object:
    # Resolved on first use (PEP 562) so that `import tersely` does not import torch.
    if name not in _WHERE:
        raise AttributeError(f"module 'tersely' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
