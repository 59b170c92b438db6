"""The description of the API, by hand: one test holds it against the router, one the answers against it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_args

from tiltd.daemon.core.bookings import Plight
from tiltd.daemon.core.model import State
from tiltd.daemon.core.observations import Action

from .routes import API

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
FLAG: Json = {"type": "boolean"}
NUMBER: Json = {"type": "number"}
COUNT: Json = {"type": "integer", "minimum": 0}
TEXTS: Json = {"type": "array", "items": TEXT}
COUNTS: Json = {"type": "object", "additionalProperties": COUNT}
ANYTHING: Json = {"type": "object"}
QUALITY: Json = {"type": "object", "additionalProperties": NUMBER}
STATES = "|".join(State)


def obj(required: Json, optional: Json | None = None, *, closed: bool = False) -> Json:
    found: Json = {
        "type": "object",
        "properties": required | (optional or {}),
        "required": sorted(required),
    }
    return found | ({"additionalProperties": False} if closed else {})


def many(items: Json) -> Json:
    return {"type": "array", "items": items}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


SCHEMAS: Json = {
    "Error": obj({"error": TEXT}),
    "Row": obj(
        {
            "dataset_id": TEXT,
            "name": TEXT,
            "feed": TEXT,
            "project": TEXT,
            "session": TEXT,
            "state": {"type": "string", "enum": list(State)},
            "since_at": NUMBER,
            "held": TEXTS,
            "nodes": TEXTS,
            "attempts": COUNT,
            "job_id": TEXT,
            "why": TEXT,
            "result_path": TEXT,
            "verdict": TEXT,
            "quality": QUALITY,
        }
    ),
    "Result": obj({"dataset_id": TEXT, "name": TEXT, "state": TEXT, "ok": FLAG, "message": TEXT}),
    "Fact": obj({"sequence": COUNT, "kind": TEXT, "at": NUMBER}),
    "Due": obj(
        {
            "notice_id": TEXT,
            "event": TEXT,
            "summary": TEXT,
            "to": TEXT,
            "project": TEXT,
            "due_at": NUMBER,
            "trouble": TEXT,
        }
    ),
    "Told": obj({"at": NUMBER, "notice_id": TEXT, "to": TEXT, "sent": FLAG, "reason": TEXT}),
    "Act": obj(
        {
            "sequence": COUNT,
            "at": NUMBER,
            "by": TEXT,
            "via": TEXT,
            "action": TEXT,
            "dataset_id": TEXT,
            "project": TEXT,
            "ok": FLAG,
            "message": TEXT,
        }
    ),
    "Node": obj(
        {
            "name": TEXT,
            "state": TEXT,
            "cores": COUNT,
            "cores_free": {"type": "integer"},
            "cores_reserved": COUNT,
            "memory_bytes": COUNT,
            "scratch_total_bytes": COUNT,
            "scratch_free_bytes": {"type": "integer"},
            "scratch_reserved_bytes": COUNT,
            "scratch_leaked_bytes": COUNT,
            "attempts": TEXTS,
            "bookings": many(ref("Booking")),
        }
    ),
    "Booking": obj(
        {
            "attempt_id": TEXT,
            "dataset_id": TEXT,
            "name": TEXT,
            "project": TEXT,
            "node": TEXT,
            "cores": COUNT,
            "scratch_bytes": COUNT,
            "since_at": NUMBER,
            "plight": {"type": "string", "enum": list(get_args(Plight))},
            "why": TEXTS,
        }
    ),
    "Directive": obj({"key": TEXT, "value": TEXT, "origin": TEXT, "layer": TEXT, "overruled": TEXTS}),
    "DirectiveFault": obj(
        {
            "sentence": TEXT,
            "key": TEXT,
            "file": TEXT,
            "line": COUNT,
            "severity": {"type": "string", "enum": ["error", "warning"]},
        }
    ),
    "Feed": obj({"name": TEXT, "path": TEXT, "detector": TEXT, "pipeline": TEXT, "states": COUNTS}),
    "Selection": obj(
        {},
        {
            "state": TEXT,
            "feed": TEXT,
            "project": TEXT,
            "session": TEXT,
            "name": TEXT,
            "text": TEXT,
            "held": {"type": "string", "enum": ["", "yes"]},
            "limit": {"type": "integer", "minimum": 1, "maximum": 10000},
        },
        closed=True,
    ),
}


def answers(schema: Json, more: Json | None = None, media: str = "application/json") -> Json:
    """What every address may answer, and 200."""
    fails = {
        "400": "the request is wrong; the sentence says how",
        "401": "who asks is not known",
        "403": "who asks may not",
        "421": "asked for under a name that is not tiltd's",
        "429": "too often; Retry-After says when again",
    }
    failing = {
        code: {"description": text, "content": {"application/json": {"schema": ref("Error")}}}
        for code, text in (fails | (more or {})).items()
    }
    return {"200": {"description": "done", "content": {media: {"schema": schema}}}} | failing


def parameter(name: str, meaning: str, schema: Json = TEXT) -> Json:
    return {"name": name, "in": "query", "description": meaning, "required": False, "schema": schema}


NAME: Json = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "id, name of the series, or the beginning of an id that is unique",
    "schema": {"type": "string", "minLength": 1},
}
UNKNOWN = {"404": "there is none, or none that you may see", "409": "the name means several"}
WHERE = [
    parameter("state", f"by commas, of {STATES}"),
    parameter("feed", "of this feed"),
    parameter("project", "of this project"),
    parameter("session", "of this session"),
    parameter("name", "names like this; * and ? match"),
    parameter("text", "names with this in them, or ids that begin so"),
    parameter("held", "only what is held", {"type": "string", "enum": ["", "yes"]}),
    parameter("before", "the `next` of the page before"),
    parameter("limit", "at most so many", {"type": "integer", "minimum": 1, "maximum": 10000}),
]


def get(summary: str, schema: Json, parameters: list[Json] | None = None, more: Json | None = None) -> Json:
    return {"get": {"summary": summary, "parameters": parameters or [], "responses": answers(schema, more)}}


def post(summary: str, body: Json, schema: Json) -> Json:
    more = {
        "404": "a dataset is not known, or not to you",
        "409": "a name means several",
        "413": "the request is too large",
    }
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": answers(schema, more),
        }
    }


ACTIONS_BODY = obj(
    {"action": {"type": "string", "enum": list(get_args(Action))}},
    {
        "datasets": TEXTS,
        "selection": ref("Selection"),
        "options": {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}},
        "reason": {"type": "string", "maxLength": 1000},
        "priority": {"type": "integer", "minimum": -1000, "maximum": 1000},
        "dry_run": FLAG,
    },
    closed=True,
)
PRUNE_BODY = obj(
    {"what": many({"type": "string", "enum": ["spool", "attempts", "imports", "journal", "results"]})},
    {"datasets": TEXTS, "older_than_seconds": {"type": "number", "minimum": 0}, "dry_run": FLAG},
    closed=True,
)
STATUS = obj(
    {
        "ready": FLAG,
        "reasons": TEXTS,
        "version": TEXT,
        "policy_version": TEXT,
        "states": COUNTS,
        "held": COUNTS,
        "nodes": COUNTS,
        "now_at": NUMBER,
    }
)
FEED = parameter("feed", "of this feed")
PAGE = [
    parameter("before", "the `next` of the page before", COUNT),
    parameter("limit", "at most so many", {"type": "integer", "minimum": 1, "maximum": 1000}),
]

PATHS: Json = {
    f"{API}/status": get("The whole at a glance.", STATUS),
    f"{API}/datasets": get(
        "Datasets, the last changed first.",
        obj({"datasets": many(ref("Row")), "now_at": NUMBER}, {"next": TEXT}),
        WHERE,
    ),
    f"{API}/datasets/{{name}}": get(
        "One dataset, and why it is where it is.", obj({"dataset": ANYTHING, "why": TEXTS}), [NAME], UNKNOWN
    ),
    f"{API}/datasets/{{name}}/facts": get(
        "Its story.", obj({"dataset_id": TEXT, "facts": many(ref("Fact"))}), [NAME], UNKNOWN
    ),
    f"{API}/datasets/{{name}}/directives": get(
        "What its run is given, and who set it.",
        obj(
            {
                "dataset_id": TEXT,
                "name": TEXT,
                "state": TEXT,
                "pipeline": TEXT,
                "directives": many(ref("Directive")),
                "faults": many(ref("DirectiveFault")),
            }
        ),
        [NAME],
        UNKNOWN | {"422": "it has none: not complete yet, or its pipeline takes none"},
    ),
    f"{API}/why/{{name}}": get(
        "Why a series is where it is, also one that is no tilt series.",
        obj({"dataset_id": TEXT, "name": TEXT, "state": TEXT, "lines": TEXTS}),
        [NAME],
        UNKNOWN,
    ),
    f"{API}/nodes": get(
        "Nodes, what is booked on each and by whom.", obj({"nodes": many(ref("Node")), "now_at": NUMBER})
    ),
    f"{API}/feeds": get("Feeds.", obj({"feeds": many(ref("Feed"))})),
    f"{API}/ignored": get("What is no tilt series.", obj({"ignored": many(ANYTHING)}), [FEED]),
    f"{API}/acts": get("What operators did.", obj({"acts": many(ref("Act"))}, {"next": COUNT}), PAGE),
    f"{API}/notices": get(
        "What people are to be told, and were told lately; for who sees all projects.",
        obj(
            {
                "due": many(ref("Due")),
                "digests": many(ANYTHING),
                "gathered": many(ANYTHING),
                "lately": many(ref("Told")),
                "now_at": NUMBER,
            }
        ),
        PAGE[1:],
    ),
    f"{API}/actions": post(
        "Hold, release, retry, rerun, cancel, accept, prioritize datasets, or close a breaker.",
        ACTIONS_BODY,
        obj({"action": TEXT, "dry_run": FLAG, "results": many(ref("Result"))}),
    ),
    f"{API}/policy/reload": post(
        "Read the policy files again.",
        obj({}, closed=True),
        obj({"ok": FLAG, "policy_version": TEXT, "faults": TEXTS}),
    ),
    f"{API}/prune": post(
        "Remove what is no longer needed; on the unix socket only.",
        PRUNE_BODY,
        obj({"dry_run": FLAG, "found": many(ANYTHING)}),
    ),
    f"{API}/events": {
        "get": {
            "summary": "Server-sent events: `change` with {datasets, many, nodes}.",
            "parameters": [],
            "responses": answers(TEXT, media="text/event-stream"),
        }
    },
    f"{API}/openapi.json": get("This description.", obj({"openapi": TEXT, "paths": ANYTHING})),
}


def document() -> Json:
    """OpenAPI 3.1."""
    try:
        number = version("tiltd")
    except PackageNotFoundError:
        number = "0"
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tiltd",
            "version": number,
            "description": "Every failure is answered with {error: sentence}.",
        },
        "paths": PATHS,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }
