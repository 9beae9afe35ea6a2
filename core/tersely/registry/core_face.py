"""The core's own face: defaults of torch.nn's module types, and the dependency tracer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tersely.contracts.settings import (
    DEFAULT_DTYPE,
    DEFAULT_GRANULARITY,
    DEFAULT_MASKING,
    DEFAULT_QUANTIZING,
)
from tersely.json_value import Json
from tersely.registry.descriptors import DependencyTracerInfo, ModuleSetting
from tersely.registry.hookspecs import hookimpl

tersely_api = 1

Template = Mapping[str, Mapping[str, Json]]

RANKED: Mapping[str, Json] = {
    "sparse_ratio": None,
    "max_sparse_ratio": None,
    "min_sparse_ratio": None,
    "sparse_threshold": None,
    "global_group_id": None,
    "dependency_group_id": None,
    "granularity": DEFAULT_GRANULARITY,
    "internal_metric_block": None,
    "apply_method": DEFAULT_MASKING,
}
"""Setting of a pruning target that has an importance of its own."""

QUANTIZED: Mapping[str, Json] = {
    "quant_dtype": DEFAULT_DTYPE,
    "quant_scheme": None,
    "granularity": DEFAULT_GRANULARITY,
    "apply_method": DEFAULT_QUANTIZING,
}
"""Setting of a quantization target."""

DISTILLED: Mapping[str, Json] = {"lambda": None, "link": None, "apply_method": None}
"""Setting of a distillation target."""


def aligned(target: str, dim: int) -> Mapping[str, Json]:
    """Return the setting of a target whose mask follows ``target`` of the same module."""
    return aligned_along(target, [dim])


def aligned_along(target: str, dims: Sequence[int]) -> Mapping[str, Json]:
    """Return the setting of a target whose mask follows several dimensions of ``target``."""
    return {
        "align": {"module_name": None, "target_name": target, "dims": list(dims)},
        "apply_method": DEFAULT_MASKING,
    }


def _weighted(output_dim: int = 0) -> Template:
    return {"weight": RANKED, "bias": aligned("weight", output_dim)}


def _quantized(*targets: str) -> Template:
    return dict.fromkeys(targets, QUANTIZED)


_ALL_QUANTIZED = _quantized("weight", "bias", "_input_", "_output_")
_ACTIVATION_QUANTIZED = _quantized("_input_", "_output_")
_OUTPUT_RANKED: Template = {"_output_": RANKED}

_DIMENSIONS = ("1d", "2d", "3d")
_ACTIVATIONS = """
    CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid LogSoftmax
    Mish PReLU ReLU ReLU6 RReLU SELU SiLU Sigmoid Softmax Softmax2d Softmin Softplus Softshrink
    Softsign Tanh Tanhshrink Threshold
""".split()  # noqa: SIM905  # a list literal of 28 names is six times as long
_POOLS = """
    AdaptiveAvgPool AdaptiveMaxPool AvgPool LPPool MaxPool MaxUnpool FractionalMaxPool
""".split()  # noqa: SIM905  # as above


def _linear() -> list[ModuleSetting]:
    names = ["Linear", "LazyLinear"]
    settings = [
        ModuleSetting(
            module_type=f"torch.nn.{name}", pruning=_weighted(), quantization=_ALL_QUANTIZED
        )
        for name in names
    ]
    # MultiheadAttention's out_proj has a class of its own; it is an ordinary linear layer.
    settings.append(
        ModuleSetting(
            module_type="NonDynamicallyQuantizableLinear",
            pruning=_weighted(),
            quantization=_ALL_QUANTIZED,
        )
    )
    settings.append(
        ModuleSetting(
            module_type="torch.nn.Bilinear",
            pruning=_weighted(),
            quantization=_quantized("weight", "bias", "_input_0", "_input_1", "_output_"),
        )
    )
    return settings


def _convolutions() -> list[ModuleSetting]:
    settings = []
    for dimension in _DIMENSIONS:
        for prefix in ("", "Lazy"):
            settings.append(
                ModuleSetting(
                    module_type=f"torch.nn.{prefix}Conv{dimension}",
                    pruning=_weighted(),
                    quantization=_ALL_QUANTIZED,
                    channels_first=True,
                )
            )
            settings.append(
                ModuleSetting(
                    module_type=f"torch.nn.{prefix}ConvTranspose{dimension}",
                    pruning=_weighted(output_dim=1),
                    quantization=_ALL_QUANTIZED,
                    output_dim=1,
                    input_dim=0,
                    channels_first=True,
                )
            )
    return settings


def _norms() -> list[ModuleSetting]:
    first = [
        f"{prefix}{norm}{dimension}"
        for norm in ("BatchNorm", "InstanceNorm")
        for dimension in _DIMENSIONS
        for prefix in ("", "Lazy")
    ]
    return [
        ModuleSetting(
            module_type=f"torch.nn.{name}",
            pruning=_weighted(),
            quantization=_ALL_QUANTIZED,
            channels_first=name not in ("LayerNorm", "RMSNorm"),
        )
        for name in [*first, "SyncBatchNorm", "GroupNorm", "LayerNorm", "RMSNorm"]
    ]


def _embeddings() -> list[ModuleSetting]:
    return [
        ModuleSetting(
            module_type=f"torch.nn.{name}",
            pruning={"weight": RANKED},
            quantization=_quantized("weight", "_output_"),
            output_dim=1,
            input_dim=0,
        )
        for name in ("Embedding", "EmbeddingBag")
    ]


def _attention() -> list[ModuleSetting]:
    # Only one of in_proj_weight and {q,k,v}_proj_weight exists; the others are None and skipped.
    weights = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    return [
        ModuleSetting(
            module_type="torch.nn.MultiheadAttention",
            pruning={
                **dict.fromkeys(weights, RANKED),
                "in_proj_bias": aligned("in_proj_weight", 0),
            },
            quantization=_quantized(*weights, "in_proj_bias"),
        )
    ]


def _recurrent() -> list[ModuleSetting]:
    # A star stands for the layer and direction: weight_ih_l0, weight_ih_l0_reverse, weight_ih_l1...
    def template(star: str) -> Template:
        return {
            f"weight_ih{star}": RANKED,
            f"weight_hh{star}": RANKED,
            f"bias_ih{star}": aligned(f"weight_ih{star}", 0),
            f"bias_hh{star}": aligned(f"weight_hh{star}", 0),
        }

    stacked = {**template("*"), "weight_hr*": RANKED}
    return [
        ModuleSetting(
            module_type=f"torch.nn.{name}{suffix}",
            pruning=targets,
            quantization=_quantized(*targets),
        )
        for name in ("LSTM", "GRU", "RNN")
        for suffix, targets in (("", stacked), ("Cell", template("")))
    ]


def _without_weights() -> list[ModuleSetting]:
    pools = [f"{name}{dimension}" for name in _POOLS for dimension in _DIMENSIONS]
    return [
        *(
            ModuleSetting(
                module_type=f"torch.nn.{name}",
                pruning=_OUTPUT_RANKED,
                quantization=_ACTIVATION_QUANTIZED,
            )
            for name in _ACTIVATIONS
        ),
        *(
            ModuleSetting(
                module_type=f"torch.nn.{name}",
                pruning=_OUTPUT_RANKED,
                quantization=_ACTIVATION_QUANTIZED,
                channels_first=True,
            )
            for name in [*pools, "LocalResponseNorm"]
        ),
    ]


@hookimpl
def tersely_dependency_tracers() -> list[DependencyTracerInfo]:
    """Return the tracer that follows channels on the graph that shrinking cuts."""
    return [
        DependencyTracerInfo(
            name="exported_graph",
            implementation="tersely.shrinking.tracer:ExportedGraphTracer",
            summary="Follows channels through the graph of torch.export, as shrink does.",
        )
    ]


@hookimpl
def tersely_module_settings() -> list[ModuleSetting]:
    """Return the settings of every torch.nn layer with weights, of activations and of pools."""
    return [
        *_linear(),
        *_convolutions(),
        *_norms(),
        *_embeddings(),
        *_attention(),
        *_recurrent(),
        *_without_weights(),
    ]
