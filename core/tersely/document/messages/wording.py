"""How values are shown in messages: short, and as they are written in YAML."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from tersely.json_value import Json

_LONGEST = 60


def show(value: Json) -> str:
    """Return a value as it is shown after "found".

    Args:
        value: plain JSON data.
    """
    if isinstance(value, str):
        return _short(repr(value))
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("infinity" if value > 0 else "-infinity")
    if isinstance(value, (list, dict)):
        text = _dump(value) if _is_small(value) else ""
        if text and len(text) <= _LONGEST:
            return text
        return "a list" if isinstance(value, list) else "a mapping"
    if isinstance(value, int) and abs(value) >= 10**_LONGEST:
        return "a very large integer"
    return json.dumps(value)


def join_words(words: Sequence[str], *, last: str = "or") -> str:
    """Return words as an enumeration, as in ``a, b or c``.

    Args:
        words: at least one word.
        last: the word before the last one.
    """
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def _dump(value: Json) -> str:
    # Half a surrogate pair is legal in JSON, but no terminal can print it.
    text = json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()


def _is_small(value: Json, budget: int = 20) -> bool:
    items = list(value.values()) if isinstance(value, dict) else value
    return len(items) <= budget and all(
        not isinstance(item, (list, dict)) or _is_small(item, budget // 2) for item in items
    )


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]}...{text[0]}"
