"""What to say about a plugin's name that cannot be used: unknown, ambiguous, broken, refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tersely.document.messages.describe import describe
from tersely.document.messages.synonyms import meaning_of_name
from tersely.document.messages.wording import join_words, show
from tersely.document.schemas.compose import CATALOG, needs
from tersely.errors import PluginError, UnknownPluginError
from tersely.json_value import Json
from tersely.registry.registry import registry
from tersely.text import did_you_mean


def catalog_of(schema: Mapping[str, Json]) -> str | None:
    """Return the catalog whose names a schema lists, as in ``pruners``, or None.

    Args:
        schema: a JSON Schema.
    """
    comment = schema.get("$comment", "")
    return comment.removeprefix(CATALOG) if comment.startswith(CATALOG) else None


def about_name(name: str, catalog_name: str, *, names: Sequence[str]) -> tuple[str, str | None]:
    """Return message and hint for a name that no usable plugin provides.

    Args:
        name: the name as written.
        catalog_name: where it was looked up, as in ``pruners``.
        names: the legal names.
    """
    catalog = getattr(registry(), catalog_name)
    singular = catalog.kind.name
    try:
        required = needs(catalog, name)
        options = ", ".join(f"{option}: ..." for option in required)
        message = f"{singular} {name!r} needs {join_words(required, last='and')}"
        return message, f"write {{{name}: {{{options}}}}}"
    except UnknownPluginError as error:
        # The lines after the first list the plugins that might have provided the name.
        notes = [line.strip() for line in str(error).splitlines()[1:]]
    except PluginError as error:
        return str(error), None
    meant = meaning_of_name(name, names)
    near = did_you_mean(name, names) if meant is None else f"write {meant}"
    if near is not None:
        # If the right name is installed, there is nothing to install.
        notes = [near, *(note for note in notes if "pip install" not in note)]
    hint = "; ".join(notes).replace("?; ", "? ") or None
    if not names:
        return f"found {show(name)}, but no plugin that provides {_a(singular)} is installed", hint
    legal = describe({"enum": list(names)}, {})
    return f"found {show(name)}, expected {_a(singular)}: {legal}", hint


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
