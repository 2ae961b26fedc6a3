"""The routes of the first Pensieve, and its tokens."""
import json

import pytest
import requests

from harness import OPENING


def test_generate(server):
    answer = server.post("/generate", {"prompt": OPENING, "max_tokens": 4, "temperature": 0})
    whole = answer.json()
    assert answer.status_code == 200 and "Tokyo" in whole["text"] and whole["tokens"] == 4
    assert whole["elapsed_seconds"] > 0 and whole["tokens_per_second"] > 0 and whole["memory_status"]
    answer = server.post("/generate",
                         {"prompt": OPENING, "max_tokens": 4, "temperature": 0, "stream": True})
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert "".join(line["text"] for line in lines[:-1]) == whole["text"]
    assert {line["type"] for line in lines[:-1]} == {"chunk"} and lines[-1] == {"type": "complete"}


@pytest.mark.parametrize("body", [{}, {"prompt": "x", "max_tokens": 0}, {"prompt": "x", "temperature": 3}, {"prompt": 1}])
def test_bad_bodies(server, body):
    answer = server.post("/generate", body)
    assert answer.status_code == 422 and answer.json()["detail"]


def test_clearing_the_cache(server):
    question = {
        "model": "local",
        "max_tokens": 1,
        "messages": [{"role": "user", "content": "Which words does the cache remember? " * 20}]
    }

    def cached():
        return server.post("/v1/messages", question).json()["usage"]["cache_read_input_tokens"]

    cached()
    assert cached() > 0
    assert server.post("/cache/clear", {}).json()["status"] == "cleared"
    assert cached() == 0
    assert requests.post(server.url + "/cache/clear", timeout=30).status_code == 200  # without a body too


@pytest.mark.parametrize("header", ["x-api-key", "authorization"])
@pytest.mark.parametrize("token", ["pensieve-local-token", "sk-ant-anything", "test-api-key-12345"])
def test_tokens_of_earlier_clients(server, header, token):
    headers = {header: token if header == "x-api-key" else f"Bearer {token}"}
    assert server.get("/v1/models", headers=headers).status_code == 200
