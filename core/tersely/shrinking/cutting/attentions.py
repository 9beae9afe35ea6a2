"""Attention modules of a model that shrinks, which may lose heads."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping

from torch import nn

from tersely.engine.state.cutting import FixedShapes
from tersely.shrinking.cutting.apply import Undoing
from tersely.shrinking.heads import FewerHeads

_INPUT_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
_WEIGHTS = (*_INPUT_WEIGHTS, "out_proj.weight")


def masked_attention(model: nn.Module, masked: Container[str]) -> dict[str, nn.Module]:
    """Return the attention modules that may lose heads, by path.

    Args:
        model: the model.
        masked: names of the parameters that have masks.
    """
    return {
        path: module
        for path, module in model.named_modules()
        if type(module) is nn.MultiheadAttention and is_reached(path, masked)
    }


def is_reached(path: str, names: Container[str]) -> bool:
    """Tell whether a weight of an attention module is among parameters.

    Args:
        path: of the module.
        names: the parameters.
    """
    return any((f"{path}.{weight}" if path else weight) in names for weight in _WEIGHTS)


def fixed_attention(model: nn.Module, reasons: Mapping[str, str]) -> FixedShapes:
    """Return tensors that keep their shape because the forward of an attention module requires it.

    Args:
        model: the model.
        reasons: path of an attention module -> why it keeps its heads, if known.
    """
    return {
        (path, weight): reasons.get(path) or _insisting(path, type(module))
        for path, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention) and not isinstance(module, FewerHeads)
        for weight in _INPUT_WEIGHTS
    }


def _insisting(path: str, cls: type[nn.Module]) -> str:
    made = "" if cls is nn.MultiheadAttention else f"{cls.__name__}, made of "
    place = path or "the model"
    return f"forward of {place} ({made}torch.nn.MultiheadAttention) requires its full width"


def attend_by_heads(module: nn.Module, undoing: Undoing) -> None:
    """Let an attention module compute with its remaining heads.

    Args:
        module: a `torch.nn.MultiheadAttention`.
        undoing: records the change.
    """
    undoing.set_attribute(module, "__class__", FewerHeads)
    # The fused kernels of encoder layers check this attribute before they run.
    undoing.set_attribute(module, "_qkv_same_embed_dim", False)


def attend_as_cut(model: nn.Module, cuts: Collection[str], undoing: Undoing) -> None:
    """Let the attention modules that lose heads compute with the remaining ones.

    Args:
        model: the model.
        cuts: names of the parameters that are cut.
        undoing: records the changes.
    """
    for module in masked_attention(model, cuts).values():
        attend_by_heads(module, undoing)


def follow_heads(model: nn.Module, undoing: Undoing) -> None:
    """Turn off nested tensors in the encoders around attention with fewer heads.

    Args:
        model: the model.
        undoing: records the changes.
    """
    for module in model.modules():
        if not isinstance(module, nn.TransformerEncoder):
            continue
        if getattr(module, "use_nested_tensor", False) and any(
            isinstance(one, FewerHeads) for one in module.modules()
        ):
            undoing.set_attribute(module, "use_nested_tensor", False)
