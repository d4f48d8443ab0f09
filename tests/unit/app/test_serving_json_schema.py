"""JSON answers against their schemas."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadInput
from app.use_cases.json_schema import DoesNotFit, check_schema, parse_answer

TICKET = {
    "type": "object",
    "properties": {
        "urgency": {"enum": ["low", "high"]},
        "amount": {"type": "number", "minimum": 0, "maximum": 1000},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "maxItems": 2},
        "who": {"anyOf": [{"type": "string", "minLength": 1}, {"type": "null"}]},
    },
    "required": ["urgency"],
    "additionalProperties": False,
    "$defs": {"tag": {"type": "string", "pattern": "^[a-z]+$"}},
}


@pytest.mark.parametrize(
    "value",
    [
        {"urgency": "low"},
        {"urgency": "high", "amount": 12.5, "tags": ["a", "b"], "who": None},
        {"urgency": "high", "who": "ada", "tags": []},
    ],
)
def test_what_follows_the_schema_is_given_back(value):
    check_schema(TICKET)
    assert parse_answer(json.dumps(value), TICKET) == value


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({}, "lacks 'urgency'"),
        ({"urgency": "mid"}, r"\$\.urgency is 'mid'"),
        ({"urgency": "low", "amount": -1}, r"\$\.amount is -1, minimum"),
        ({"urgency": "low", "amount": True}, r"\$\.amount is no number"),
        ({"urgency": "low", "tags": ["A"]}, r"\$\.tags\[0\] does not match"),
        ({"urgency": "low", "tags": ["a", "b", "c"]}, "3 items"),
        ({"urgency": "low", "who": ""}, "fits 0 of the schemas in anyOf"),
        ({"urgency": "low", "more": 1}, r"\$\.more is not allowed"),
        ([], "is no object"),
    ],
)
def test_what_does_not_follow_it_says_where(value, where):
    with pytest.raises(DoesNotFit, match=where):
        parse_answer(json.dumps(value), TICKET)


def test_text_that_is_no_json_is_refused():
    with pytest.raises(DoesNotFit, match="not JSON"):
        parse_answer('{"urgency": "lo', TICKET)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"patternProperties": {}}, "patternProperties"),
        ({"$ref": "https://example.org/schema"}, "points outside"),
        ({"$ref": "#/$defs/nobody"}, "points nowhere"),
        ({"properties": {"a": {"not": {}}}}, "'not'"),
        ({"pattern": "("}, "pattern"),
        ({"pattern": "(a+)+$"}, "repeats a repetition"),
        ({"items": 3}, "not a schema object"),
        ({"properties": []}, "'properties' is"),
        ({"anyOf": 5}, "'anyOf' is 5"),
        ({"required": "name"}, "give a list"),
        ({"minLength": "a"}, "whole number"),
        ({"minimum": True}, "give a number"),
        ({"pattern": 5}, "give a text"),
        ({"type": "strin"}, "choose object, array"),
        ({"type": 5}, "type 5 is unknown"),
    ],
)
def test_schemas_that_could_not_be_checked_are_refused(schema, said):
    with pytest.raises(BadInput, match=said):
        check_schema(schema)


def test_unions_within_unions_end():
    chain = {f"n{i}": {"anyOf": [{"$ref": f"#/$defs/n{i + 1}"}] * 2} for i in range(28)}
    schema = {"$defs": {**chain, "n28": {"type": "string"}}, "$ref": "#/$defs/n0"}
    with pytest.raises(DoesNotFit):
        parse_answer("1", schema)


def test_a_number_too_large_for_a_float_is_an_integer():
    assert parse_answer("1" * 400, {"type": "integer"}) == int("1" * 400)
    with pytest.raises(DoesNotFit):
        parse_answer("1.5", {"type": "integer"})


def test_a_schema_that_refers_to_itself_ends():
    endless = {"$ref": "#"}
    check_schema(endless)
    with pytest.raises(DoesNotFit, match="too deeply"):
        parse_answer("1", endless)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(JSON, JSON)
def test_a_constant_fits_itself_and_nothing_else(value, other):
    schema = {"const": value}
    assert parse_answer(json.dumps(value), schema) == value
    if json.dumps(value, sort_keys=True) != json.dumps(other, sort_keys=True):
        try:
            parse_answer(json.dumps(other), schema)
        except DoesNotFit:
            return
        assert value == other  # nested true and 1 are told apart at the top only
