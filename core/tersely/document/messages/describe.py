"""What a JSON Schema allows, in words: the part of a message after "expected"."""

from __future__ import annotations

from collections.abc import Mapping

from tersely.document.messages.wording import join_words, show
from tersely.json_value import Json

_LISTED_AT_MOST = 12
_NOUNS = {
    "string": "a string",
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}
_ITEMS = {
    "string": "string",
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
    "array": "list",
    "object": "mapping",
}


def describe(schema: Json, root: Mapping[str, Json]) -> str:
    """Return what a schema allows, as a noun phrase such as "a number from 0 to 1".

    Null is left out: it means that the key is absent, so there is no need to suggest it.

    Args:
        schema: a JSON Schema, or True or False.
        root: the document that local references point into.
    """
    if not isinstance(schema, dict):
        return "anything" if schema else "nothing"
    if "$ref" in schema:
        return describe(_resolve(schema["$ref"], root), root)
    phrases = _phrases(schema, root)
    return join_words(phrases) if phrases else _describe_untyped(schema, root)


def legal_strings(schema: Json, root: Mapping[str, Json]) -> list[str]:
    """Return the strings that a schema lists, for finding the nearest one.

    Args:
        schema: a JSON Schema, or True or False.
        root: the document that local references point into.
    """
    if not isinstance(schema, dict):
        return []
    if "$ref" in schema:
        return legal_strings(_resolve(schema["$ref"], root), root)
    listed = [*schema.get("enum", []), *([schema["const"]] if "const" in schema else [])]
    for keyword in ("anyOf", "oneOf"):
        for branch in schema.get(keyword, []):
            listed += legal_strings(branch, root)
    return [value for value in listed if isinstance(value, str)]


def _phrases(schema: Mapping[str, Json], root: Mapping[str, Json]) -> list[str]:
    """The alternatives of a schema, one phrase each."""
    if "const" in schema:
        return [show(schema["const"])]
    if "enum" in schema:
        return _list_enum(schema)
    types = schema.get("type")
    kinds = [
        kind for kind in ([types] if isinstance(types, str) else types or []) if kind != "null"
    ]
    if len(kinds) > 1 and "title" in schema:
        return [str(schema["title"])]
    if kinds:
        return [_describe_type(kind, schema, root) for kind in kinds]
    phrases = []
    for branch in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        if not isinstance(branch, dict) or "$ref" in branch:
            phrases.append(describe(branch, root))
        else:
            phrases += _phrases(branch, root) if branch.get("type") != "null" else []
    return list(dict.fromkeys(phrases))


def _list_enum(schema: Mapping[str, Json]) -> list[str]:
    values = [value for value in schema["enum"] if value is not None]
    if len(values) > _LISTED_AT_MOST and "title" in schema:
        return [str(schema["title"])]
    # Qualified names are only worth their length where nothing shorter exists.
    short = [value for value in values if ":" not in str(value)] or values
    words = [value if isinstance(value, str) else show(value) for value in short]
    more = len(words) - _LISTED_AT_MOST
    return [*words[:_LISTED_AT_MOST], f"{more} more"] if more > 0 else words


def _describe_type(kind: str, schema: Mapping[str, Json], root: Mapping[str, Json]) -> str:
    noun = _NOUNS.get(kind, kind)
    if kind in ("number", "integer"):
        return noun + _describe_range(schema)
    if kind == "string":
        return noun + _describe_text(schema)
    if kind == "array":
        return _describe_list(schema, root)
    if kind == "object":
        return _describe_mapping(schema)
    return noun


def _describe_mapping(schema: Mapping[str, Json]) -> str:
    title = schema.get("title")
    if title:
        return title if title.startswith("{") else f"{title} (a mapping)"
    required = schema.get("required")
    return f"a mapping with {join_words(required, last='and')}" if required else "a mapping"


def _describe_untyped(schema: Mapping[str, Json], root: Mapping[str, Json]) -> str:
    if "not" in schema:
        return f"anything but {describe(schema['not'], root)}"
    if any(key in schema for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")):
        return "a number" + _describe_range(schema)
    if "properties" in schema or "required" in schema:
        return _describe_mapping(schema)
    if "pattern" in schema or "minLength" in schema:
        return "a string" + _describe_text(schema)
    return "another value"


def _describe_range(schema: Mapping[str, Json]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    words = []
    if low is not None and high is not None:
        words.append(f"from {low} to {high}")
    elif low is not None:
        words.append(f"of at least {low}")
    elif high is not None:
        words.append(f"of at most {high}")
    if above is not None:
        words.append(f"above {above}")
    if below is not None:
        words.append(f"below {below}")
    if "multipleOf" in schema:
        words.append(f"that is a multiple of {schema['multipleOf']}")
    other = schema.get("not")
    if isinstance(other, dict) and "const" in other:
        words.append(f"other than {show(other['const'])}")
    return "".join(f" {word}" for word in words)


def _describe_text(schema: Mapping[str, Json]) -> str:
    examples = schema.get("examples")
    if examples:
        return f" such as {join_words([repr(example) for example in examples])}"
    if "pattern" in schema:
        return f" that matches {schema['pattern']}"
    return " that is not empty" if schema.get("minLength") == 1 else ""


def _describe_list(schema: Mapping[str, Json], root: Mapping[str, Json]) -> str:
    items = schema.get("items", True)
    if isinstance(items, dict) and "$ref" in items:
        items = _resolve(items["$ref"], root)
    kind = items.get("type", "") if isinstance(items, dict) else ""
    item = _ITEMS.get(kind if isinstance(kind, str) else "", "item")
    low, high = schema.get("minItems", 0), schema.get("maxItems")
    if low == high:
        return f"a list of {low} {item}s"
    if low and high:
        return f"a list of {low} to {high} {item}s"
    if low:
        return f"a list of at least {low} {item}{'s' if low > 1 else ''}"
    if high is not None:
        return f"a list of at most {high} {item}s"
    return "a list" if item == "item" else f"a list of {item}s"


def _resolve(reference: str, root: Mapping[str, Json]) -> Json:
    target: Json = root
    if not reference.startswith("#"):
        return True
    for part in reference.removeprefix("#").strip("/").split("/"):
        if not isinstance(target, dict) or part not in target:
            return True
        target = target[part]
    return target
