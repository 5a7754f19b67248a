"""Checks a value against the part of JSON Schema that `scenario.schema.json` uses; refuses the rest of it."""

from __future__ import annotations

import json
import re

ANNOTATIONS = {"$schema", "$defs", "title", "description"}
# Read together with the keyword they belong to.
COMPANIONS = {"additionalProperties", "patternProperties", "then", "else"}
DEFS = "#/$defs/"


def problem_of(schema, value, root, at=""):
    """What is wrong with a value, in words; None if nothing is."""
    if schema is True:
        return None
    for keyword, rule in schema.items():
        if keyword in ANNOTATIONS or keyword in COMPANIONS:
            continue
        check = CHECKS.get(keyword)
        if check is None:
            raise ValueError(f"the schema says {keyword}, which is not understood here")
        problem = check(rule, value, root, at, schema)
        if problem is not None:
            return problem
    if isinstance(value, dict) and "additionalProperties" in schema:
        return _unknown_field(schema, value, at)
    return None


def _ref(rule, value, root, at, _):
    schema = root["$defs"].get(rule[len(DEFS) :])
    if not rule.startswith(DEFS) or schema is None:
        raise ValueError(f"the schema has no {rule}")
    return problem_of(schema, value, root, at)


def _type(rule, value, _, at, __):
    types = rule if isinstance(rule, list) else [rule]
    return (
        None
        if any(_is_of(one, value) for one in types)
        else _said(at, f"is not of type {' or '.join(types)}")
    )


def _enum(rule, value, _, at, __):
    return None if any(_equal(one, value) for one in rule) else _said(at, f"{json.dumps(value)} is not known")


def _const(rule, value, _, at, __):
    return None if _equal(rule, value) else _said(at, f"is not {json.dumps(rule)}")


def _pattern(rule, value, _, at, __):
    fits = not isinstance(value, str) or re.search(rule, value)
    return None if fits else _said(at, f"does not match {rule}")


def _at_least(measure, kind, words):
    def check(rule, value, _, at, __):
        if not isinstance(value, kind) or isinstance(value, bool) or measure(value) >= rule:
            return None
        return _said(at, words.format(rule))

    return check


def _maximum(rule, value, _, at, __):
    over = isinstance(value, (int, float)) and not isinstance(value, bool) and value > rule
    return _said(at, f"is more than {rule}") if over else None


def _unique(_, value, __, at, ___):
    if not isinstance(value, list) or len({json.dumps(one, sort_keys=True) for one in value}) == len(value):
        return None
    return _said(at, "has an item twice")


def _items(rule, value, root, at, _):
    if not isinstance(value, list):
        return None
    return _first(problem_of(rule, item, root, f"{at}[{n}]") for n, item in enumerate(value))


def _property_names(rule, value, root, at, _):
    if not isinstance(value, dict):
        return None
    return _first(problem_of(rule, name, root, _inside(at, name)) for name in value)


def _required(rule, value, _, at, schema):
    if not isinstance(value, dict):
        return None
    missing = next((name for name in rule if name not in value), None)
    if missing is None:
        return None
    # A name that is wrong explains why the right one is missing.
    return _unknown_field(schema, value, at) or _said(at, f"missing field `{missing}`")


def _properties(rule, value, root, at, _):
    if not isinstance(value, dict):
        return None
    return _first(
        problem_of(one, value[name], root, _inside(at, name)) for name, one in rule.items() if name in value
    )


def _one_of(shapes, value, root, at, _):
    if all("do" in shape.get("properties", {}) for shape in shapes):
        return _step_of(shapes, value, root, at)
    fitting = [shape for shape in shapes if problem_of(shape, value, root, at) is None]
    if len(fitting) == 1:
        return None
    return _said(
        at, f"{json.dumps(value, separators=(',', ':'))} fits {'several shapes' if fitting else 'no shape'}"
    )


def _if(rule, value, root, at, schema):
    branch = schema.get("then" if problem_of(rule, value, root, at) is None else "else", True)
    return problem_of(branch, value, root, at)


CHECKS = {
    "$ref": _ref,
    "type": _type,
    "enum": _enum,
    "const": _const,
    "pattern": _pattern,
    "minLength": _at_least(len, str, "is shorter than {}"),
    "minimum": _at_least(lambda number: number, (int, float), "is less than {}"),
    "maximum": _maximum,
    "minItems": _at_least(len, list, "has fewer than {} items"),
    "uniqueItems": _unique,
    "items": _items,
    "minProperties": _at_least(len, dict, "has fewer than {} fields"),
    "propertyNames": _property_names,
    "required": _required,
    "properties": _properties,
    "oneOf": _one_of,
    "if": _if,
}


def _step_of(shapes, value, root, at):
    """The shapes of steps are told apart by `do`."""
    do = value.get("do") if isinstance(value, dict) else None
    for shape in shapes:
        if problem_of(shape["properties"]["do"], do, root) is None:
            return problem_of(shape, value, root, at)
    return _said(at, f"unknown step `{do}`")


def _unknown_field(schema, value, at):
    if schema.get("additionalProperties") is not False:
        return None
    for name in value:
        if name in schema.get("properties", {}):
            continue
        patterns = schema.get("patternProperties", {}).items()
        rule = next((rule for pattern, rule in patterns if re.search(pattern, name)), None)
        problem = (
            _said(at, f"unknown field `{name}`")
            if rule is None
            else problem_of(rule, value[name], {"$defs": {}}, _inside(at, name))
        )
        if problem is not None:
            return problem
    return None


def _first(problems):
    return next((problem for problem in problems if problem is not None), None)


def _is_of(kind, value):
    if kind == "object":
        return isinstance(value, dict)
    if kind == "array":
        return isinstance(value, list)
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "string":
        return isinstance(value, str)
    if kind == "null":
        return value is None
    if kind == "boolean":
        return isinstance(value, bool)
    raise ValueError(f"the schema says type {kind}, which is not understood here")


def _equal(one, other):
    return type(one) is type(other) and one == other


def _inside(at, name):
    return name if at == "" else f"{at}.{name}"


def _said(at, problem):
    return problem if at == "" else f"{at}: {problem}"
