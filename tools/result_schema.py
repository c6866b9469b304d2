"""Print docs/result.schema.json, from the dataclasses: ``python -m tools.result_schema > docs/result.schema.json``."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Any, Literal, get_args

from mmpt.runs.result import FORMAT, Result
from mmpt.runs.typed_json import fields, parts

JSON_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string"}


def schema() -> dict[str, Any]:
    """The JSON schema of a complete result, made from the dataclasses."""
    content = json_schema(Result)
    form = {"const": FORMAT, "description": "of this file; a reader rejects a newer one"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "result.json of a run directory",
        "description": "What one finished run measured. Readers ignore keys that they do not know.",
        **content,
        "properties": {"format": form, **content["properties"]},
    }


def json_schema(kind: Any, metadata: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Describe a type, with what a field's metadata says of it."""
    metadata = metadata or {}
    schema = _type_schema(kind)
    if "null" in metadata:
        schema = {"anyOf": [schema, {"type": "null"}]}
    return schema | ({"description": metadata["about"]} if "about" in metadata else {})


def _type_schema(kind: Any) -> dict[str, Any]:
    origin, arguments = parts(kind)
    if origin is None:
        return {"type": JSON_TYPES[kind], **({"minimum": 0} if kind is int else {})}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        size = {} if arguments[-1] is Ellipsis else {"minItems": len(arguments), "maxItems": len(arguments)}
        return {"type": "array", "items": json_schema(arguments[0]), **size}
    if origin is not dataclasses.dataclass:
        return {"type": "object", "additionalProperties": json_schema(arguments[1])}
    stored = fields(kind)
    named = {name: json_schema(inner, about) for name, (inner, about) in stored.items() if "beside" not in about}
    others = [json_schema(get_args(inner)[1]) for inner, about in stored.values() if "beside" in about]
    more = {"additionalProperties": others[0]} if others else {}
    return {"type": "object", "required": list(named), "properties": named, **more}


if __name__ == "__main__":
    json.dump(schema(), sys.stdout, indent=2)
    sys.stdout.write("\n")
