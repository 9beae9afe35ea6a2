"""Classes of values that a schema cannot tell apart."""

import pytest

from tersely.document.schemas.value_classes import ValueClasses


@pytest.mark.parametrize(
    ("schema", "one", "other"),
    [
        ({"minimum": 0, "maximum": 1}, 0.25, 0.5),
        ({"minimum": 0, "maximum": 1}, -3, -7),
        ({"exclusiveMaximum": 1}, 1.5, 99.25),
        ({"enum": ["int8", "int4"]}, "int9", "x"),
        ({"properties": {"a": True}}, {"b": 1}, {"c": 5}),
        ({"minLength": 1}, "ab", "abc"),
        ({"pattern": "^a"}, "ab", "ac"),
        ({"items": {"maximum": 2}}, [3, 1], [4, 0]),
    ],
)
def test_what_a_schema_takes_alike_is_alike(schema, one, other):
    assert ValueClasses(schema).of(one) == ValueClasses(schema).of(other)


@pytest.mark.parametrize(
    ("schema", "one", "other"),
    [
        ({"minimum": 0, "maximum": 1}, 1, 1.5),
        ({"exclusiveMaximum": 1}, 0.5, 1),
        ({"const": -1}, -1, -2),
        ({"enum": ["int8", [4]]}, 4, 5),
        ({"enum": ["int8", "int4"]}, "int8", "int4"),
        ({"type": "integer"}, 2.5, 2.0),
        ({"type": "integer"}, 1, True),
        ({}, None, False),
        ({"properties": {"a": True}}, {"a": 1}, {"b": 1}),
        ({"required": ["a"]}, {"a": 1}, {"b": 1}),
        ({"dependentRequired": {"a": ["c"]}}, {"a": 1}, {"b": 1}),
        ({"patternProperties": {"^a": False}}, {"ab": 1}, {"b": 1}),
        ({"maxProperties": 1}, {"a": 1}, {"a": 1, "b": 1}),
        ({"minLength": 1}, "", "a"),
        ({"maxLength": 2}, "ab", "abc"),
        ({"pattern": "^a"}, "a", "b"),
        ({"pattern": "("}, "a", "b"),  # cannot be asked
        ({"multipleOf": 2}, 4, 5),
        ({"uniqueItems": True}, [1, 1], [1, 2]),
        ({"items": {"maximum": 2}}, [3, 1], [1, 3]),
        ({"minItems": 2}, [1], [1, 1]),
    ],
)
def test_what_a_schema_tells_apart_is_not(schema, one, other):
    assert ValueClasses(schema).of(one) != ValueClasses(schema).of(other)
