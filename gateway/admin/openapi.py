"""The OpenAPI 3.1 document, made from the same operations that the routes are made from."""

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from gateway.admin import problems
from gateway.admin.operation import Operation

_PROBLEM: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {name: {"type": "string"} for name in ("field", "message", "remedy")},
            },
        },
    },
}
_MEANINGS: Final = {
    400: "The request has not the form described here; `errors` names the field",
    401: "The admin token is missing, mistyped, unknown, expired or revoked",
    403: "The role of the admin token does not allow it",
    404: "There is no such object, or it is outside the admin token's scope",
    405: "The path has no such method",
    409: "The state of other objects does not allow it",
    412: "If-Match names another version",
    413: "The body is too large",
    415: "The body is not application/json",
    422: "Well-formed, but a value cannot be accepted; `errors` names the field",
    429: "Too many admin tokens from this address were refused; `retry-after` says how long",
    500: "The gateway failed",
    503: "The database does not answer",
}
_JSON: Final = "application/json"
_ID_PATTERN: Final = "^[a-z]+_[0-9a-z]{26}$"
_IF_MATCH: Final = {
    "name": "If-Match",
    "in": "header",
    "schema": {"type": "string", "maxLength": 200},
    "description": "The ETag that GET answered; another version is refused with 412",
}
_REPEAT: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
    "description": "Sent again with the same key, within 30 days, it makes nothing more and "
    "answers what it made",
}
_ETAG: Final = {"ETag": {"schema": {"type": "string"}, "description": "The version, quoted"}}


def document(operations: Sequence[Operation], prefix: str, version: str) -> dict[str, Any]:
    schemas, components = _schemas(operations)
    paths: dict[str, Any] = {}
    for each in operations:
        path = paths.setdefault(prefix + each.path, {})
        path[each.method.lower()] = _operation(each, schemas, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Meterhouse admin API", "version": version},
        "servers": [{"url": "/"}],
        "security": [{"adminToken": []}],
        "paths": {path: paths[path] for path in sorted(paths)},
        "components": {
            "schemas": components | {"Problem": _PROBLEM},
            "securitySchemes": {"adminToken": {"type": "http", "scheme": "bearer"}},
        },
    }


def _schemas(operations: Sequence[Operation]) -> tuple[dict[int, Any], dict[str, Any]]:
    """Schemas by the identity of the type, and the components they refer to."""
    named = [kind for each in operations for kind in (each.query, each.body, each.answers) if kind]
    types = [kind for kind in named if not isinstance(kind, dict)]
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    by_type = {id(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    return by_type | {id(kind): kind for kind in named if isinstance(kind, dict)}, components


def _operation(
    each: Operation, schemas: dict[int, Any], components: dict[str, Any]
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": _operation_id(each),
        "summary": each.summary,
        "tags": [each.tag],
        "responses": _responses(each, schemas),
    }
    if each.description:
        described["description"] = each.description
    if parameters := _parameters(each, schemas, components):
        described["parameters"] = parameters
    if each.body is not None:
        described["requestBody"] = {
            "required": not each.body_optional,
            "content": {"application/json": {"schema": schemas[id(each.body)]}},
        }
    return described


def _operation_id(each: Operation) -> str:
    words = re.findall(r"[a-z]+", each.path.replace("{id}", "one"))
    return "_".join([each.method.lower(), *words])


def _parameters(
    each: Operation, schemas: dict[int, Any], components: dict[str, Any]
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if "{id}" in each.path:
        schema = {"type": "string", "pattern": _ID_PATTERN}
        found.append({"name": "id", "in": "path", "required": True, "schema": schema})
    if each.query is not None:
        component = components[schemas[id(each.query)]["$ref"].rpartition("/")[2]]
        for name, schema in component["properties"].items():
            found.append({"name": name, "in": "query", "schema": _not_null(schema)})
    if each.if_match:
        found.append(_IF_MATCH)
    if each.repeatable:
        found.append(_REPEAT)
    return found


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A query parameter is left out rather than null."""
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1:
        return dict(options[0])
    return {name: value for name, value in schema.items() if value is not None}


def _responses(each: Operation, schemas: dict[int, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Done"}
    if each.answers is not None:
        success["content"] = {
            media: {"schema": schemas[id(each.answers)] if media == _JSON else {"type": "string"}}
            for media in each.media_types
        }
    if each.etag:
        success["headers"] = _ETAG
    body = {413, 415} if each.body is not None else set()
    refusals = sorted({400, 401, 403, 429, 500, 503, *each.refusals, *body})
    problem = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {str(each.status): success} | {
        str(status): {"description": _MEANINGS[status], "content": problem} for status in refusals
    }
