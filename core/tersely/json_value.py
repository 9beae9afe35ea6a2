"""The type of any value that a JSON document can hold."""

from __future__ import annotations

from typing import Any

Json = Any  # JSON values have no closed static type
