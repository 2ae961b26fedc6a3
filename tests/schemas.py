"""Schemas and random ones, for tests and benchmarks of structured answers."""
import random

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "email": {"type": "string", "format": "email"},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 3},
        "address": {"anyOf": [{"$ref": "#/$defs/address"}, {"type": "null"}]},
    },
    "required": ["name", "age", "address"],
    "additionalProperties": False,
    "$defs": {
        "address": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}, "zip": {"type": "string", "pattern": "^\\d{5}$"}},
            "required": ["city", "zip"],
            "additionalProperties": False,
        }
    },
}


def random_schema(rng: random.Random, depth=2):
    """A schema whose values are short, so that answers end."""
    kinds = ["integer", "number", "string", "pattern", "format", "enum", "boolean", "const"]
    if depth > 0:
        kinds += ["object", "object", "array", "tuple", "anyOf", "allOf", "oneOf"]
    kind = rng.choice(kinds)
    low = rng.randint(-50, 50)
    if kind == "integer":
        return {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 200)}
    if kind == "number":
        return {"type": "number", "exclusiveMinimum": low / 4, "maximum": low / 4 + rng.randint(1, 20)}
    if kind == "string":
        least = rng.randint(0, 3)
        return {"type": "string", "minLength": least, "maxLength": least + rng.randint(0, 8)}
    if kind == "pattern":
        return {"type": "string", "pattern": rng.choice(["^[a-z]{1,6}$", "^(x|yy)+z?$", "^\\d{2}-\\w{1,3}$", "^[^a-m]{2,5}$"]),
                "maxLength": 9}
    if kind == "format":
        return {"type": "string", "format": rng.choice(["date", "ipv4", "uuid", "date-time"])}
    if kind == "enum":
        return {"enum": rng.sample(["a", "b b", "\u00e9\"", 1, 2.5, None, True, [1, "x"], {"k": 0}], rng.randint(1, 4))}
    if kind == "const":
        return {"const": rng.choice(["x", 7, {"a": [None]}])}
    if kind == "boolean":
        return {"type": ["boolean", "null"]}
    if kind == "array":
        least = rng.randint(0, 2)
        return {"type": "array", "items": random_schema(rng, depth - 1), "minItems": least, "maxItems": least + rng.randint(0, 2)}
    if kind == "tuple":
        return {"type": "array", "prefixItems": [random_schema(rng, depth - 1) for _ in range(rng.randint(1, 2))],
                "items": False, "minItems": 1}
    if kind == "anyOf":
        return {"anyOf": [random_schema(rng, depth - 1) for _ in range(2)]}
    if kind == "oneOf":
        return {"oneOf": [{"type": "integer", "maximum": low, "minimum": low - 5},
                          {"type": "string", "maxLength": 3},
                          {"type": "object", "properties": {"k": random_schema(rng, 0)}, "required": ["k"],
                           "additionalProperties": False}]}
    names = rng.sample(["a", "b", "name", "na", "long key", "\u00fc", "x1"], rng.randint(1, 3))
    properties = {name: random_schema(rng, depth - 1) for name in names}
    schema = {"type": "object", "properties": properties, "required": rng.sample(names, rng.randint(0, len(names))),
              "additionalProperties": False}
    if kind == "allOf":
        extra = {"properties": {"more": random_schema(rng, 0)}, "required": ["more"]}
        del schema["additionalProperties"]
        return {"allOf": [schema, extra], "unevaluatedProperties": False, "type": "object"}
    if rng.random() < 0.3:
        schema["maxProperties"] = len(names)
        schema["additionalProperties"] = random_schema(rng, 0)
    return schema
