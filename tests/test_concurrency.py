"""Many clients at once, clients that vanish, and a server that is told to stop."""
import concurrent.futures
import json
import signal
import socket
import struct
import threading

import pytest
import requests

from harness import ANSWER, QUESTION, Server, clean_environment, parse_sse, run, text_of, wait_for

STORY = "Write a very long story about a lighthouse keeper and his dog, with every detail you can think of."


def stream(server, text, max_tokens, **fields):
    """One whole streamed answer: (text, stop reason)."""
    answer = server.post(
        "/v1/messages", {
            "model": "local", "max_tokens": max_tokens, "temperature": 0, "stream": True,
            "messages": [{"role": "user", "content": text}], **fields
        })
    assert answer.status_code == 200, answer.text
    events = parse_sse(answer.content.decode())
    assert events[-1][0] == "message_stop", events[-1]
    text = "".join(data["delta"]["text"] for kind, data in events if kind == "content_block_delta")
    return text, next(data["delta"]["stop_reason"] for kind, data in events if kind == "message_delta")


def open_stream(server, max_tokens=4000):
    """A raw connection whose stream has begun; (socket, bytes so far)."""
    payload = json.dumps({
        "model": "local", "max_tokens": max_tokens, "stream": True, "temperature": 0,
        "messages": [{"role": "user", "content": STORY}]
    }).encode()
    connection = socket.create_connection(("127.0.0.1", server.http_port), timeout=300)
    connection.sendall(b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                       b"content-length: %d\r\n\r\n" % len(payload) + payload)
    seen = b""
    while b"content_block_delta" not in seen:
        piece = connection.recv(4096)
        assert piece, seen
        seen += piece
    return connection, seen


def reset(connection):
    """Closes with RST, as a killed client does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def idle(server):
    """No request under way and no KV block held by one (blocks kept for reuse are as good as free)."""
    names = ("pensieve_engine_running", "pensieve_engine_waiting", "pensieve_kv_blocks_used")
    return all(server.metric(name) == 0 for name in names)


def test_sixteen_streams(server):
    prompts = [f"Count from {i} upwards, one number a line." for i in range(16)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda prompt: stream(server, prompt, 24), prompts))
    assert all(text and reason in ("max_tokens", "end_turn") for text, reason in answers)
    wait_for(lambda: idle(server), "an idle engine")


def test_mixed_load(server):
    """Streams, whole answers, counts, embeddings, lists and errors beside each other: each gets what is its own."""
    def work(i):
        kind = i % 6
        if kind == 0:
            return stream(server, f"Name {i} animals.", 12)[0] != ""
        if kind == 1:
            return text_of(server.message(QUESTION, 16)) == ANSWER
        if kind == 2:
            return len(server.post("/api/v1/embed", {"texts": [f"text {i}", "b"]}).json()["embeddings"]) == 2
        if kind == 3:
            counted = server.post("/v1/messages/count_tokens",
                                  {"model": "m", "messages": [{"role": "user", "content": "a " * i}]})
            return counted.json()["input_tokens"] > 0
        if kind == 4:
            return server.post("/v1/messages", {"model": "m"}).status_code == 400
        return server.get("/v1/models").status_code == 200 and server.get("/metrics").status_code == 200

    with concurrent.futures.ThreadPoolExecutor(48) as pool:
        assert list(pool.map(work, range(48))) == [True] * 48
    wait_for(lambda: idle(server), "an idle engine")


def test_disconnect_frees_everything(server):
    connection, _ = open_stream(server)
    # The stream opens when the request is accepted; blocks are taken by its first step, later on a busy machine.
    wait_for(lambda: server.metric("pensieve_kv_blocks_used") > 0, "blocks of a running sequence")
    assert server.metric("pensieve_engine_running") == 1
    reset(connection)
    wait_for(lambda: idle(server), "blocks back after a disconnect")


def test_disconnect_of_a_client_that_waits_for_a_whole_answer(server):
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.post(
            server.url + "/v1/messages",
            timeout=0.5,
            json={"model": "m", "max_tokens": 8000, "messages": [{"role": "user", "content": STORY}], "temperature": 0})
    wait_for(lambda: idle(server), "blocks back after a disconnect")


def test_storm_of_disconnects(server):
    def vanish(i):
        connection, _ = open_stream(server)
        if i % 2:
            reset(connection)
        else:
            connection.close()

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        list(pool.map(vanish, range(36)))
    wait_for(lambda: idle(server), "blocks back after the storm")
    server.assert_healthy()


def test_more_requests_than_places(start_server):
    """Refused with a retry hint in the dialect's words, or answered; nothing in between."""
    small = start_server("--sequences", "2", "--queue-depth", "2")
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(
                lambda i: small.post("/v1/messages", {
                    "model": "m", "max_tokens": 16, "messages": [{"role": "user", "content": f"Story {i}"}]
                }), range(16)))
        openai = list(
            pool.map(
                lambda i: small.post(
                    "/v1/chat/completions", {
                        "model": "smollm2-135m-instruct", "max_tokens": 16,
                        "messages": [{"role": "user", "content": f"Story {i}"}]
                    }), range(16)))
    assert {answer.status_code
            for answer in answers} <= {200, 529} and {answer.status_code
                                                      for answer in openai} <= {200, 429}
    assert sum(answer.status_code == 200 for answer in answers) >= 2
    refused = [answer for answer in answers + openai if answer.status_code != 200]
    assert refused
    for answer in refused:
        assert int(answer.headers["retry-after"]) >= 1
        kind = answer.json()["error"]["type"]
        assert kind == ("overloaded_error" if answer.status_code == 529 else "rate_limit_error")
    small.assert_healthy()


def test_little_kv_memory(start_server):
    """More sequences than the KV pool can hold at once: they wait or give way, and all complete with their own text."""
    with Server() as ample:
        prompts = [f"List {i + 3} uses of a hammer." for i in range(6)]
        want = [text_of(ample.message(prompt, 24)) for prompt in prompts[:2]]
    small = start_server("--kv-memory", "16MB", "--context", "512")
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda prompt: text_of(small.message(prompt, 24)), prompts))
    assert all(answers) and answers[:2] == want
    wait_for(lambda: idle(small), "an idle engine")


def test_sigterm_during_a_stream(start_server):
    running = start_server("--grace", "10m")
    results = {}
    began = threading.Event()

    def read():
        body = {
            "model": "m", "max_tokens": 60, "stream": True, "temperature": 0,
            "messages": [{"role": "user", "content": STORY}]
        }
        with requests.post(running.url + "/v1/messages", json=body, stream=True, timeout=600) as answer:
            payload = b""
            for piece in answer.iter_content(None):
                payload += piece
                if b"content_block_delta" in payload:
                    began.set()
        results["events"] = parse_sse(payload.decode())

    reader = threading.Thread(target=read)
    reader.start()
    assert began.wait(600)
    code = running.terminate()
    reader.join(600)
    assert results["events"][-1][0] == "message_stop"
    delta = next(data for kind, data in results["events"] if kind == "message_delta")
    assert delta["usage"]["output_tokens"] == 60 or delta["delta"]["stop_reason"] == "end_turn"
    assert code == 0, running.log()[-2000:]


def test_the_grace_period_ends(start_server):
    """A stream that would go on too long ends with an error event, and the exit is still clean."""
    running = start_server("--grace", "200ms")
    connection, payload = open_stream(running, 8000)
    code = running.terminate()
    while piece := connection.recv(65536):
        payload += piece
    connection.close()
    assert code == 0, running.log()[-2000:]
    assert b"event: error" in payload and b"overloaded_error" in payload and b"message_stop" not in payload


def test_idle_keep_alive_connections_do_not_hold_the_exit(start_server):
    running = start_server("--grace", "30s")
    with requests.Session() as session:
        assert session.get(running.url + "/health", timeout=60).status_code == 200
        assert running.terminate() == 0


def test_sigint_ends_too(start_server):
    running = start_server()
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(60) == 0


@pytest.mark.parametrize("which, flag", [("http_port", "--port"), ("grpc_port", "--grpc-port")])
def test_port_in_use(server, which, flag):
    port = getattr(server, which)
    other = {"--port": "--grpc-port", "--grpc-port": "--port"}[flag]
    done = run("serve", flag, port, other, 0, env=clean_environment())
    assert done.returncode == 1
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("error: ") and str(port) in message and flag in message, message
    server.assert_healthy()


def test_request_log(start_server):
    """One JSON line a request, without the prompt."""
    secret = "a-word-that-must-not-be-logged"
    logging = start_server("--log-format", "json")
    request_id = logging.post(
        "/v1/messages", {"model": "m", "max_tokens": 3, "messages": [{"role": "user", "content": f"Say {secret}"}]
                         }).headers["request-id"]
    wait_for(lambda: request_id in logging.log(), "the request's log line")
    entries = [json.loads(line) for line in logging.log().splitlines() if line.startswith("{")]
    mine = [entry for entry in entries if entry.get("id") == request_id]
    assert len(mine) == 1
    assert mine[0]["outcome"] == "done" and mine[0]["tokens_out"] == 3 and mine[0]["tokens_in"] > 3
    assert mine[0]["model"] == "smollm2-135m-instruct" and mine[0]["status"] == 200
    assert secret not in logging.log()
