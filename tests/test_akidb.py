"""AkiDB's REST contract: POST /api/v1/embed as its clients know it, and the goldens of the default embedding model."""
import concurrent.futures
import json

import numpy as np
import pytest
import requests

from harness import DATA

# The body of AkiDB's load script.
WRK_TEXTS = ["The quick brown fox jumps over the lazy dog", "Machine learning is transforming software"]
BUSY = "Embedding model is currently processing another request. Please retry with exponential backoff."


def embed(server, texts, **fields):
    answer = server.post("/api/v1/embed", {"texts": texts, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def vectors_text(server, texts):
    """The vectors as the server spelled them: equal spelling means equal bits."""
    text = server.post("/api/v1/embed", {"texts": texts}).text
    rows = text[len('{"embeddings":[['):text.index("]],")].split("],[")
    assert len(rows) == len(texts)
    return rows


def test_embed(server):
    answer = server.post("/api/v1/embed", {"texts": WRK_TEXTS})
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["embeddings", "model", "dimension", "usage"]
    assert body["dimension"] == 384 and np.shape(body["embeddings"]) == (2, 384)
    assert body["model"] == "qwen3-0.6b-4bit"
    assert list(body["usage"]) == ["total_tokens", "duration_ms"]
    assert body["usage"]["total_tokens"] == 43 // 4 + 41 // 4
    assert isinstance(body["usage"]["duration_ms"], int) and body["usage"]["duration_ms"] >= 0
    assert np.linalg.norm(body["embeddings"], axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("texts, tokens", [(["Hello world"], 2), (["", ""], 2), (["abc"], 1), (["éééé"], 2),
                                           (["a" * 4, "b" * 9], 3), (["日本語"], 2), (["x"] * 32, 32)])
def test_token_estimate(server, texts, tokens):
    assert embed(server, texts)["usage"]["total_tokens"] == tokens


@pytest.mark.parametrize("name", ["qwen3-0.6b-4bit", "all-minilm-l6-v2", "no such model \"quoted\" \u2603", ""])
def test_any_model_name_is_echoed(server, name):
    assert embed(server, ["x"], model=name)["model"] == name


def test_pooling_and_normalize(server):
    mean, cls, last = (np.array(embed(server, ["pooling matters"], pooling=kind)["embeddings"][0])
                       for kind in ("mean", "cls", "last"))
    assert not np.allclose(mean, cls) and not np.allclose(mean, last)
    assert np.array_equal(mean, embed(server, ["pooling matters"])["embeddings"][0])
    raw = np.array(embed(server, ["pooling matters"], normalize=False)["embeddings"][0])
    assert abs(np.linalg.norm(raw) - 1) > 1e-3
    assert raw / np.linalg.norm(raw) == pytest.approx(mean, abs=1e-6)
    assert server.post("/api/v1/embed", {"texts": ["x"], "pooling": "best"}).status_code == 400


def test_limits(server):
    assert len(embed(server, [f"text {i}" for i in range(32)])["embeddings"]) == 32
    for texts, message in (([], "texts cannot be empty"), (["x"] * 33, "Maximum 32 texts per request")):
        answer = server.post("/api/v1/embed", {"texts": texts})
        assert answer.status_code == 400 and answer.json() == {"error": message}


@pytest.mark.parametrize("payload, status", [("{", 400), ("", 400), ("nonsense", 400), ("[]", 422), ("{}", 422),
                                             ('{"texts":"x"}', 422), ('{"texts":[1]}', 422), ('{"texts":null}', 422),
                                             ('{"texts":["x"],"model":null}', 422),
                                             ('{"texts":["x"],"normalize":"yes"}', 422),
                                             ('{"texts":["x"],"pooling":5}', 422), ('{"inputs":["x"]}', 422),
                                             ('{"texts":["x"],"unknown":{"a":1}}', 200)])
def test_bodies(server, payload, status):
    answer = server.post("/api/v1/embed", data=payload, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    if status != 200:
        assert set(answer.json()) == {"error"} and isinstance(answer.json()["error"], str)


def test_media_type_and_method(server):
    for headers in ({}, {"content-type": "text/plain"}):
        answer = requests.post(server.url + "/api/v1/embed", data=b'{"texts":["x"]}', headers=headers, timeout=60)
        assert answer.status_code == 415
        assert "Content-Type: application/json" in answer.json()["error"]
    with_charset = {"content-type": "application/json; charset=utf-8"}
    assert server.post("/api/v1/embed", data=b'{"texts":["x"]}', headers=with_charset).status_code == 200
    answer = server.get("/api/v1/embed")
    assert answer.status_code == 405 and "POST" in answer.headers["allow"]


def test_hundreds_of_tokens_are_cut_at_the_models_limit(server):
    long, longer = embed(server, ["word " * 600, "word " * 900 + "and another end"])["embeddings"]
    assert long == longer


def test_concurrent_requests_all_succeed(server):
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: server.post("/api/v1/embed", {"texts": WRK_TEXTS}), range(30)))
    assert [answer.status_code for answer in answers] == [200] * 30
    assert len({answer.text[:answer.text.index('],"model"')] for answer in answers}) == 1


def test_a_text_alone_and_in_any_batch(server):
    """Bit for bit, whatever stands beside it."""
    texts = ["short", "a somewhat longer text about nothing in particular", "", "word " * 300, "日本語とemoji 🙂", "x"]
    alone = [vectors_text(server, [text])[0] for text in texts]
    assert vectors_text(server, texts) == alone
    assert vectors_text(server, texts[::-1]) == alone[::-1]
    assert vectors_text(server, (texts * 6)[:32]) == (alone * 6)[:32]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        message = pool.submit(server.message, "Write about the sea.", 32)  # another model works meanwhile
        assert [row for row, in pool.map(lambda text: vectors_text(server, [text]), texts * 3)] == alone * 3
        assert message.result()["usage"]["output_tokens"] > 0


def test_goldens(server):
    """Against vectors of an independent float64 reference (tools/golden_minilm.py)."""
    cases = json.loads((DATA / "models" / "minilm_golden.json").read_text())["texts"]
    for case, vector in zip(cases, embed(server, [case["text"] for case in cases])["embeddings"], strict=True):
        have, want = np.array(vector), np.array(case["vector"])
        assert have @ want / np.linalg.norm(have) / np.linalg.norm(want) >= 0.9999, case["text"][:60]
        assert np.abs(have - want).max() < 1e-4, case["text"][:60]


def test_full_queue_says_busy(start_server):
    """Published clients look for 503, and for this sentence."""
    small = start_server("--queue-depth", "1", "--sequences", "1")
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda _: small.post("/api/v1/embed", {"texts": ["word " * 400] * 8}), range(24)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) < 24
    for answer in refused:
        assert answer.status_code == 503
        assert answer.json() == {"error": BUSY}
        assert int(answer.headers["retry-after"]) >= 1
    small.assert_healthy()


def test_memory_gate(start_server):
    """Work is refused, and said how, while less memory is free than asked for."""
    short = start_server("--memory-critical-gb", "65536", memory_gate="true")
    answers = {
        "/api/v1/embed": {"texts": ["x"]},
        "/v1/messages": {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]},
        "/v1/embeddings": {"model": "all-minilm-l6-v2", "input": "x"}
    }
    for path, request in answers.items():
        answer = short.post(path, request)
        assert answer.status_code == 503, path
        assert answer.headers["x-memory-status"] == "critical" and float(answer.headers["x-available-memory-gb"]) > 0
        assert "retry-after" in answer.headers
    assert short.get("/health").json()["memory_status"] == "critical"


def test_embedding_can_be_switched_off(start_server):
    off = start_server("--embedding", "false")
    assert off.post("/api/v1/embed", {"texts": ["x"]}).status_code == 404


def test_health(server):
    health = server.get("/health")
    assert health.status_code == 200
    body = health.json()
    assert body["status"] == "healthy" and body["model_loaded"] is True and body["message"]
    assert {"model_path", "uptime_seconds", "memory_status", "memory_available_gb", "concurrent_limit"} <= set(body)
    assert {"status", "available_gb", "accepting_requests"} <= set(body["memory"])
    device = body["device"]
    assert device["kind"] in device["name"] and device["reason"] and device["threads"] >= 1
    assert device["company_matters"] is False or device["kind"] != "cpu"
    assert isinstance(device["precision_differs"], bool) and "f16" in device["kv_dtypes"]
    ready = server.get("/ready")
    assert ready.status_code == 200 and ready.json()["status"] == "ready"


def test_metrics(server):
    embed(server, ["count me"])
    answer = server.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert server.metric("akidb_embedding_requests_total", status="success") >= 1
    assert server.metric("akidb_embedding_batch_size_count") >= 1
    assert server.metric("akidb_http_requests_total", path="/api/v1/embed", status_code="200") >= 1
    as_json = server.get("/metrics", headers={"accept": "application/json"}).json()
    assert as_json["metrics"]["akidb_embedding_requests_total"]
    # Label values never come from clients.
    server.get("/some/unknown/path-with-user-input")
    assert "user-input" not in server.get("/metrics").text
