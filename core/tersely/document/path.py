"""The path of something in a document: a tuple of keys and indices, and how people read it."""

from __future__ import annotations

import re
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]

_PLAIN_KEY = re.compile(r"[\w$-]+\Z")


def spell_path(path: Path) -> str:
    """Return a path as people read it, as in ``pruning.config_list[0].sparse_ratio``.

    Args:
        path: keys and indices from the root; a key that is not a plain word is written in
            brackets and quotes.
    """
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not _PLAIN_KEY.match(part):
            text += f"[{part!r}]"
        else:
            text += f".{part}" if text else part
    return text
