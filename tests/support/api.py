"""The API of a service without a socket: a client, uploads, and what schemathesis makes of its OpenAPI."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
from starlette.testclient import TestClient

from dermalyze.serve.server.app import build_app
from dermalyze.serve.server.client import Client
from dermalyze.serve.server.logs import Log
from dermalyze.serve.server.service import Service


class Sink:
    """A log that is kept."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def client_of(service: Service, **options: Any) -> TestClient:
    app = build_app(service, **{"hosts": ("localhost",), "log": Log(Sink()), **options})  # type: ignore[arg-type]
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False)


def package_client(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> Client:
    """The package's own client, whose requests go to a test client."""

    def ask(self: Client, method: str, path: str, body: bytes | None = None, headers: Any = None) -> bytes:
        response = client.request(method, path, content=body, headers=headers)
        assert response.status_code == 200, response.text
        return bytes(response.content)

    monkeypatch.setattr(Client, "_ask", ask)
    return Client("http://localhost")


def files(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", ("x.jpg", content)) for content in contents]


def drive(service: Service) -> set[str]:
    """Paths that schemathesis tried; it raises where an answer is not what OpenAPI says."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks as conformance

    checks = [
        not_a_server_error, conformance.status_code_conformance, conformance.content_type_conformance,
        conformance.response_schema_conformance,
    ]  # fmt: skip
    schema = schemathesis.openapi.from_asgi("/openapi.json", build_app(service, hosts=("*",), log=Log(Sink())))  # type: ignore[arg-type]
    seen: set[str] = set()
    for operation in schema.get_all_operations():

        @given(case=operation.ok().as_strategy())
        @settings(
            max_examples=15, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def run(case: Any) -> None:
            seen.add(case.path)
            case.validate_response(case.call(), checks=checks)

        run()
    return seen
