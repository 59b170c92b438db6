"""The description of the API is what the router has and what is answered; no crooked request is a bug."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi import checks

from shell.serving import Serving
from shell.web_scene import facility
from tiltd.daemon.web.app import Room
from tiltd.daemon.web.lookup import Lookup
from tiltd.daemon.web.openapi import document

EXAMPLES = 20
CHECKS = (
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with Serving(facility(tmp_path_factory.mktemp("api"))) as serving:
        for buckets in (serving.room.guard._reads, serving.room.guard._acts):
            buckets.burst = buckets.per_second = 1e9
        yield serving


def test_what_is_described_is_what_there_is(tmp_path: Path) -> None:
    daemon = facility(tmp_path)
    room = Room(daemon, lookup := Lookup(daemon))
    lookup.close()
    plain = re.compile(r"\{(\w+):[^}]*\}+")
    there = {
        (route.method.lower(), plain.sub(r"{\1}", route.path))
        for route in room.routes()
        if route.path.startswith("/api/")
    }
    told = {(method, path) for path, methods in document()["paths"].items() for method in methods}
    assert told == there
    added = {
        (route.method, route.resource.canonical) for route in room.app().router.routes() if route.resource
    }
    assert {(method.lower(), plain.sub(r"{\1}", path)) for method, path in added if "/api/" in path} >= there


def test_every_parameter_that_is_told_is_taken(served: Serving) -> None:
    for path, methods in document()["paths"].items():
        for parameter in methods.get("get", {}).get("parameters", []):
            if parameter["in"] == "query":
                values = {"state": "ready", "limit": "5", "before": "5", "held": "yes"}
                status, text = served.get(f"{path}?{parameter['name']}={values.get(parameter['name'], 'x')}")
                assert status == 200, (path, parameter["name"], text)
        if "{" not in path and "get" in methods and not path.endswith("events"):
            known = {parameter["name"] for parameter in methods["get"]["parameters"]}
            status, text = served.get(f"{path}?nothing_like_that=1")
            assert status == 400 or not known, (path, text)


def test_no_request_is_a_bug_and_answers_are_as_described(served: Serving) -> None:
    """schemathesis makes requests of the description, good and crooked ones."""
    schema: Any = schemathesis.openapi.from_dict({**document(), "servers": [{"url": served.base}]})
    checked: list[str] = []
    headers = {"Authorization": f"Bearer {served.token}"}
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path.endswith("/events"):
            continue

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            response = case.call(base_url=served.base, headers=headers, timeout=10)
            assert response.status_code < 500, (case.as_curl_command(), response.text)
            case.validate_response(response, checks=CHECKS, headers=headers)

        ask()
        checked.append(operation.label)
    assert len(checked) == len([1 for methods in document()["paths"].values() for _ in methods]) - 1
    assert served.errors() == []
