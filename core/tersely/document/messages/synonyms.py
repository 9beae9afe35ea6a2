"""Words that other libraries and papers use, and what they are called in a document."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import attrs

from tersely.json_value import Json


@attrs.frozen
class Meaning:
    """What a word of the field is written as.

    Attributes:
        key: the key to write, or None where the word has more than one meaning.
        value: what to write after it.
        advice: what to write, in words, where ``key`` is None.
        beside: a key that the mapping must allow for the advice to apply; empty for anywhere.
    """

    key: str | None
    value: Json = None
    advice: str = ""
    beside: str = ""


_INTEGERS = range(2, 17)
"""The bits that integer types can have."""

_Reader = Callable[[Json], "Meaning | None"]


def meaning_of_key(key: str, value: Json, *, legal: frozenset[str]) -> Meaning | None:
    """Return what a key that is not of this specification is written as, or None.

    Args:
        key: as written.
        value: its value.
        legal: the keys that its mapping allows.
    """
    reader = _KEYS.get(_plain(key))
    meaning = reader(value) if reader is not None else None
    needed = None if meaning is None else meaning.key or meaning.beside
    if meaning is None or (needed and needed not in legal):
        return None
    return meaning


def meaning_of_value(value: Json, schema: Mapping[str, Json]) -> Json:
    """Return what a value of the field is written as, or None.

    Args:
        value: as written.
        schema: the schema that it does not fit, with the legal values.
    """
    meant = _VALUES.get(_plain(str(value)))
    return meant if meant in schema.get("enum", ()) else None


def meaning_of_name(word: Json, names: Collection[str]) -> str | None:
    """Return what a word of the field for an algorithm or granularity is called, or None.

    Args:
        word: as written.
        names: the legal names.
    """
    meant = _NAMES.get(_plain(word)) if isinstance(word, str) else None
    return meant if meant in names else None


def advice_for_preset(word: Json) -> str | None:
    """Return which preset a word for a number format means, in words, or None.

    Args:
        word: what was written for a preset.
    """
    return _PRESETS.get(_plain(str(word)))


def _plain(word: str) -> str:
    return word.casefold().replace("-", "_").replace(" ", "_")


def _same(key: str) -> _Reader:
    return lambda value: Meaning(key, value)


def _bits(value: Json) -> Meaning | None:
    if isinstance(value, int) and not isinstance(value, bool) and value in _INTEGERS:
        return Meaning("quant_dtype", f"int{value}")
    return Meaning(None, advice="write the type of the values: quant_dtype: int8")


def _group_size(value: Json) -> Meaning | None:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return Meaning("granularity", {"group": value})
    if value == -1:
        return Meaning("granularity", "per_channel")
    return None


def _scheme(yes: str, no: str) -> _Reader:
    def read(value: Json) -> Meaning | None:
        # YAML 1.2 reads yes and no as strings.
        meant = _TRUTHS.get(value.casefold()) if isinstance(value, str) else value
        return Meaning("quant_scheme", yes if meant else no) if isinstance(meant, bool) else None

    return read


def _per_channel(value: Json) -> Meaning | None:
    return Meaning("granularity", "per_channel") if value is True else None


def _structured(value: Json) -> Meaning | None:
    return Meaning("granularity", "out_channel") if value is True else None


def _names(value: Json) -> Meaning | None:
    return Meaning("op_names", [value] if isinstance(value, str) else value)


def _types(value: Json) -> Meaning | None:
    return Meaning("op_types", [value] if isinstance(value, str) else value)


def _loss(value: Json) -> Meaning | None:
    meant = _NAMES.get(_plain(value), value) if isinstance(value, str) else value
    return Meaning("apply_method", meant)


def _advice(text: str, *, beside: str = "") -> _Reader:
    return lambda value: Meaning(None, advice=text, beside=beside)


_TRUTHS: Mapping[str, bool] = {
    **dict.fromkeys(("yes", "on", "true"), True),
    **dict.fromkeys(("no", "off", "false"), False),
}


_KEYS: Mapping[str, _Reader] = {
    **dict.fromkeys(("bits", "num_bits", "n_bits", "nbits", "bit_width", "bitwidth"), _bits),
    **dict.fromkeys(("dtype", "quant_type", "qdtype"), _same("quant_dtype")),
    **dict.fromkeys(("group_size", "groupsize", "q_group_size"), _group_size),
    "block_size": _same("granularity"),
    **dict.fromkeys(("symmetric", "sym", "is_symmetric"), _scheme("symmetric", "affine")),
    **dict.fromkeys(("asymmetric", "asym", "zero_point"), _scheme("affine", "symmetric")),
    **dict.fromkeys(("scheme", "qscheme"), _same("quant_scheme")),
    "per_channel": _per_channel,
    **dict.fromkeys(("structured", "is_structured", "channel_pruning"), _structured),
    **dict.fromkeys(
        ("sparsity", "ratio", "amount", "prune_ratio", "pruning_ratio", "target_sparsity"),
        _same("sparse_ratio"),
    ),
    **dict.fromkeys(("pattern", "mask_structure", "prunen_prunem"), _same("granularity")),
    **dict.fromkeys(("modules", "layers", "module_names", "layer_names", "names"), _names),
    **dict.fromkeys(("module_types", "layer_types", "types"), _types),
    **dict.fromkeys(
        ("ignore", "ignored_layers", "skip", "modules_to_not_convert", "exclude", "excludes"),
        _advice("write exclude_op_names for names, or exclude_op_types for types"),
    ),
    **dict.fromkeys(
        ("targets", "target"),
        _advice(
            "write op_names or op_types for modules, target_names for their tensors "
            "(weight, bias, _input_, _output_)"
        ),
    ),
    **dict.fromkeys(("algo", "method", "modifier"), _same("algorithm")),
    **dict.fromkeys(("config", "configs", "entries", "config_groups"), _same("config_list")),
    **dict.fromkeys(("prune", "pruner", "sparsification"), _same("pruning")),
    **dict.fromkeys(("quantize", "quant", "quantizer", "ptq"), _same("quantization")),
    **dict.fromkeys(("distill", "distiller", "kd"), _same("distillation")),
    **dict.fromkeys(("alpha", "weight", "loss_weight"), _same("lambda")),
    **dict.fromkeys(("loss", "distill_loss", "kd_loss"), _loss),
    "type": _same("name"),
    **dict.fromkeys(("start", "start_step", "begin_step"), _same("begin")),
    **dict.fromkeys(("frequency", "interval"), _same("every")),
    **dict.fromkeys(
        ("end", "end_step", "stop", "total_steps", "max_steps"),
        _advice(
            "write times, the number of updates, as in every: 10 and times: 100 for 1000 steps",
            beside="times",
        ),
    ),
    **dict.fromkeys(("runtime", "backend", "engine"), _same("for")),
    **dict.fromkeys(("learning_rate", "learningrate"), _same("lr")),
    **dict.fromkeys(("num_epochs", "n_epochs", "max_epochs"), _same("epochs")),
    **dict.fromkeys(("optim",), _same("optimizer")),
    **dict.fromkeys(("criterion", "loss_fn", "loss_function"), _same("loss")),
    **dict.fromkeys(("scheduler", "lr_scheduler"), _same("lr_schedule")),
    **dict.fromkeys(
        ("grad_clip", "gradient_clipping", "max_grad_norm", "clip_grad_norm"), _same("clip_norm")
    ),
    "batch_size": _advice("the batches are those that data.train returns", beside="epochs"),
    **dict.fromkeys(("eval", "val", "valid", "validation", "test"), _same("evaluate")),
    **dict.fromkeys(
        ("temperature", "t"),
        _advice("it is an option of the loss: apply_method: {kl: {temperature: 4}}"),
    ),
}
"""Word -> what it means with its value; several keys of one specification may not share one."""

_VALUES: Mapping[str, Json] = {
    **dict.fromkeys(("asymmetric", "asym"), "affine"),
    "sym": "symmetric",
    **{
        spelling: f"int{bits}"
        for bits in _INTEGERS
        for spelling in (f"{bits}", f"{bits}bit", f"{bits}bits", f"{bits}_bit", f"i{bits}")
    },
    **{f"u{bits}": f"uint{bits}" for bits in range(1, 17)},
    **dict.fromkeys(
        ("fp8", "float8", "e4m3", "fp8_e4m3", "float8_e4m3", "torch.float8_e4m3fn"), "float8_e4m3fn"
    ),
    **dict.fromkeys(("e5m2", "fp8_e5m2"), "float8_e5m2"),
}

_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("cubic", "polynomial", "gradual"), "agp"),
    **dict.fromkeys(("channel", "filter", "filters"), "out_channel"),
    "magnitude": "level",
    "round_to_nearest": "rtn",
    **dict.fromkeys(("kld", "kl_div", "kl_divergence", "kullback_leibler"), "kl"),
    **dict.fromkeys(("mean_squared_error", "l2"), "mse"),
}

_PRESETS: Mapping[str, str] = {
    **dict.fromkeys(
        ("int8", "8", "8bit", "8_bit", "uint8", "static", "int8_static", "static_int8"),
        "write w8a8, or w8a8_dynamic if there is no calibration data",
    ),
    **dict.fromkeys(("dynamic", "int8_dynamic", "dynamic_int8"), "write w8a8_dynamic"),
    **dict.fromkeys(
        ("int4", "4", "4bit", "4_bit", "uint4", "w4", "int4_weight_only", "weight_only"),
        "write w4a16 for 4-bit weights only, or w4a8_dynamic for 8-bit inputs as well",
    ),
    **dict.fromkeys(("float8", "e4m3", "fp8_e4m3", "float8_e4m3fn"), "write fp8"),
}
"""Word -> the preset to write; none is sure enough to be written without asking."""
