"""docs/openapi.yaml is a valid document, names every route, and tells the truth about a running server."""
import json
import re

import jsonschema
import pytest
import requests
import yaml
from openapi_spec_validator import validate

from harness import ROOT

DOCUMENT = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text(encoding="utf-8"))
OPERATIONS = [(path, method, operation)
              for path, item in DOCUMENT["paths"].items()
              for method, operation in item.items()]


def examples():
    for path, method, operation in OPERATIONS:
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        for name, example in content.get("examples", {}).items():
            yield pytest.param(path, method, operation, content["schema"], example, id=f"{path}-{name}")


def check(schema, value):
    """`schema` may point into the document."""
    jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(value)


def resolve(node):
    while "$ref" in node:
        reference, node = node["$ref"], DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    return node


def check_answer(operation, answer):
    """Status, content type and body are as described."""
    described = resolve(operation["responses"][str(answer.status_code)])
    kind = answer.headers["content-type"].split(";")[0]
    assert kind in described["content"], (kind, answer.text[:300])
    content = described["content"][kind]
    if kind == "application/json":
        check(content["schema"], answer.json())
    elif kind == "text/event-stream":
        events = [line[len("data: "):] for line in answer.content.decode().splitlines() if line.startswith("data: ")]
        assert events
        for data in events:
            if data != "[DONE]":
                check(content["x-event-schema"], json.loads(data))
    elif kind == "application/x-ndjson":
        lines = answer.content.decode().splitlines()
        assert lines
        for line in lines:
            check(content["x-event-schema"], json.loads(line))
    assert answer.headers["request-id"].startswith("req_")


def test_the_document_is_valid():
    validate(DOCUMENT)


def served_routes():
    """(path, method) of the server's own rows and of every dialect's."""
    own = (ROOT / "src" / "http" / "routes.cc").read_text(encoding="utf-8")
    for path in re.findall(r'\{"(/[^"]*)", ServerRoute::', own):
        yield path, "get"
    for source in sorted((ROOT / "src" / "api").glob("*/dialect.cc")):
        rows = source.read_text(encoding="utf-8")
        for methods, path in re.findall(r'\{\.methods = "([^"]+)", \.path = "([^"]+)"', rows):
            for method in methods.split(", "):
                if method != "HEAD":
                    yield path, method.lower()


def test_every_route_is_described():
    """The tables of routes are in the source; what stands there must be in the document, with the same methods."""
    served = set(served_routes())
    assert len(served) > 10
    assert served == {(path, method) for path, method, _ in OPERATIONS}


@pytest.mark.parametrize("path, method, operation, schema, example", list(examples()))
def test_requests(server, path, method, operation, schema, example):
    want = example.get("x-status", 200)
    if want == 200:
        check(schema, example["value"])
    answer = requests.request(method, server.url + path, json=example["value"], timeout=120)
    assert answer.status_code == want, answer.text
    check_answer(operation, answer)


@pytest.mark.parametrize("path, method, operation", [entry for entry in OPERATIONS if entry[1] == "get"],
                         ids=lambda value: str(value)[:20])
def test_gets(server, path, method, operation):
    parameters = {parameter["name"]: parameter for parameter in operation.get("parameters", [])}
    query = {name: parameter["example"] for name, parameter in parameters.items() if "example" in parameter}
    for accept in ("*/*", "application/json"):
        for example in parameters.get("id", {}).get("examples", {"": {"value": ""}}).values():
            answer = server.get(path.replace("{id}", str(example["value"])), params=query, headers={"accept": accept})
            assert answer.status_code == example.get("x-status", 200)
            check_answer(operation, answer)


def test_errors_of_both_dialects(server):
    operation = DOCUMENT["paths"]["/v1/models"]["get"]
    for headers in ({}, {"anthropic-version": "2023-06-01"}):
        answer = server.get("/v1/models?limit=-1", headers=headers)
        assert answer.status_code == 400
        check_answer(operation, answer)


def test_errors_with_a_key(start_server):
    locked = start_server("--api-key", "secret")
    for path, method, operation in OPERATIONS:
        if operation.get("security") == [{}]:
            continue
        answer = requests.request(method, locked.url + path.replace("{id}", "x"), json={}, timeout=60)
        assert answer.status_code == 401, path
        check_answer(operation, answer)
