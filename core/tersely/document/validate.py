"""All mistakes of a document at once: the composed schema, the further rules, and the places."""

from __future__ import annotations

from tersely.document.entries import entries_of, levels_of, without_absent
from tersely.document.fractions import fill_fractions
from tersely.document.messages.broken import broken_schemas
from tersely.document.messages.misspelt import with_hidden
from tersely.document.messages.translate import translate
from tersely.document.presets import fill_presets
from tersely.document.reading.positions import Document, Finding
from tersely.document.reading.source import uncollected
from tersely.document.rules.checking import check_rules
from tersely.document.schemas.long_lists import mismatches_of
from tersely.document.schemas.schema import Kind, composed_schema
from tersely.errors import ConfigError, Problem
from tersely.json_value import Json


def find_problems(document: Document, kind: Kind) -> tuple[Problem, ...]:
    """Return every mistake of a document, in document order.

    Args:
        document: as it was read.
        kind: what it is meant to be.
    """
    with uncollected(document.characters):
        return _problems(document, _completed(document, kind), kind)


def _completed(document: Document, kind: Kind) -> Json:
    data = without_absent(document.data, kind)
    fill_presets(data, kind)
    fill_fractions(level for entry in entries_of(data, kind) for level in levels_of(entry))
    return data


def _problems(document: Document, data: Json, kind: Kind) -> tuple[Problem, ...]:
    return document.problems(with_hidden(data, lambda part: _findings(part, kind)))


def _findings(data: Json, kind: Kind) -> list[Finding]:
    return [*_check_schema(data, kind), *check_rules(data, kind)]


def check(document: Document, kind: Kind) -> Json:
    """Return a document's data without what counts as absent.

    Args:
        document: as it was read.
        kind: what it is meant to be.

    Raises:
        ConfigError: the document has mistakes; holds all of them.
    """
    with uncollected(document.characters):
        data = _completed(document, kind)
        problems = _problems(document, data, kind)
    if problems:
        raise ConfigError(problems, source=document.source)
    return data


def _check_schema(data: Json, kind: Kind) -> list[Finding]:
    root = composed_schema(kind)
    try:
        return [
            finding
            for mismatch in mismatches_of(data, kind)
            for finding in translate(mismatch, root)
        ]
    except Exception:  # a plugin's own schema ran, and may be anything
        findings = list(broken_schemas(data, kind))
        if not findings:
            raise
        return findings
