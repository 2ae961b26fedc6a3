"""Clients that speak HTTP badly, slowly or with malice. After each the server must be as healthy as before."""
import json
import socket
import time

import pytest
import requests

from harness import Server, wait_for

BODY = json.dumps({"model": "m", "max_tokens": 2, "temperature": 0, "messages": [{"role": "user",
                                                                                  "content": "Hi"}]}).encode()
HOST = b"host: localhost\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module")
def server():
    """One of its own, with short timeouts."""
    with Server("--header-timeout", "700ms", "--idle-timeout", "2s", "--body-max", "1MB", "--connections-max",
                "32") as running:
        yield running
        assert running.alive(), running.log()[-4000:]


@pytest.fixture(autouse=True)
def healthy_afterwards(server):
    yield
    assert server.alive(), server.log()[-4000:]
    assert exchange(server,
                    b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").startswith(b"HTTP/1.1 200")


def connect(server):
    return socket.create_connection(("127.0.0.1", server.http_port), timeout=30)


def read_to_end(connection):
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def exchange(server, data):
    """Sends bytes; whatever comes back until the server closes."""
    with connect(server) as connection:
        try:
            connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return read_to_end(connection)


def post(body=BODY, headers=b"", version=b"HTTP/1.1", path=b"/v1/messages"):
    return (b"POST " + path + b" " + version + b"\r\n" + HOST +
            b"content-length: %d\r\nconnection: close\r\n" % len(body) + headers + b"\r\n" + body)


def status(answer):
    assert answer.startswith(b"HTTP/1."), answer[:200]
    return int(answer.split(b" ", 2)[1])


def json_of(answer):
    return json.loads(answer.split(b"\r\n\r\n", 1)[1])


def read_one(connection):
    """One answer with content-length from a kept-alive connection: (status, headers, body)."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        assert piece, data
        data += piece
    head, body = data.split(b"\r\n\r\n", 1)
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    length = int(headers[b"content-length"])
    while len(body) < length:
        body += connection.recv(65536)
    return status(head), headers, body[:length], body[length:]


# ---- slow and vanishing ----


def test_slow_head(server):
    """A head that never ends is cut off, while others are served."""
    with connect(server) as connection:
        connection.sendall(b"GET /health HT")
        answer = read_to_end(connection)
    assert answer == b"" or status(answer) == 408


def test_slow_head_byte_by_byte(server):
    with connect(server) as connection:
        data = iter(b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 1000)
        closed = False
        for byte in data:
            try:
                connection.sendall(bytes([byte]))
            except (BrokenPipeError, ConnectionResetError):
                closed = True
                break
            time.sleep(0.02)
        assert closed


def test_slow_body(server):
    with connect(server) as connection:
        connection.sendall(b"POST /v1/messages HTTP/1.1\r\n" + HOST + b"content-length: 100\r\n\r\n{")
        answer = read_to_end(connection)
    assert answer == b"" or status(answer) == 408


def test_idle_connection_is_closed(server):
    with connect(server) as connection:
        assert read_to_end(connection) == b""


def test_vanishing_at_every_point(server):
    whole = post()
    for cut in range(0, len(whole), 37):
        with connect(server) as connection:
            connection.sendall(whole[:cut])


def test_many_slow_connections(server):
    """All places taken by silent clients: others are told, or wait until the silent ones are cut off."""
    connections = [connect(server) for _ in range(40)]
    try:
        for connection in connections:
            connection.sendall(b"POST /v1/messages HTTP/1.1\r\nhost: lo")

        def served():
            with connect(server) as connection:
                try:
                    connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                    answer = read_to_end(connection)
                except (BrokenPipeError, ConnectionResetError):
                    return False
            return answer.startswith(b"HTTP/1.1 200")

        wait_for(served, "service after the slow clients were cut off")
    finally:
        for connection in connections:
            connection.close()


# ---- malformed ----


@pytest.mark.parametrize("data", [
    b"\x00" * 100, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xab" * 200, b"hello\r\n\r\n", b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nno colon here\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\nhost: localhost\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\n\r\n\r\n\r\n",
    b"POST /v1/messages HTTP/1.1\r\n" + HOST + b"content-length: ten\r\n\r\n",
    b"POST /v1/messages HTTP/1.1\r\n" + HOST + b"content-length: -5\r\n\r\n",
    b"POST /v1/messages HTTP/1.1\r\n" + HOST + b"content-length: 99999999999999999999999\r\n\r\n",
    b"POST /v1/messages HTTP/1.1\r\n" + HOST + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    b"POST /v1/messages HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v1/messages HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\nx",
    b"GET /health HTTP/1.1\r\nhost: localhost\r\nbad\x01name: x\r\n\r\n",
],
                         ids=range(16))
def test_garbage(server, data):
    answer = exchange(server, data)
    assert answer == b"" or 400 <= status(answer) <= 505


def test_oversize_header_and_target(server):
    for data in (b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\n",
                 b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
                 b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + b"a: b\r\n" * 100_000 + b"\r\n"):
        answer = exchange(server, data)
        assert answer == b"" or status(answer) in (400, 413, 414, 431)


def test_declared_body_over_the_limit(server):
    """Refused by its announcement, not after reading it."""
    answer = exchange(server, b"POST /v1/messages HTTP/1.1\r\n" + HOST + b"content-length: 500000000\r\n\r\n")
    assert status(answer) == 413 and json_of(answer)["error"]["type"] == "request_too_large"


def test_chunked_body_over_the_limit(server):
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = exchange(server,
                      b"POST /v1/messages HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n" + chunk * 40)
    assert answer == b"" or status(answer) == 413


@pytest.mark.parametrize("body", [
    b"[" * 500_000, b'{"a":' * 100_000, b'{"messages": [' + b"[" * 400_000, b'"' + b"\\u0000" * 1000 + b'"',
    b'{"model":"\xc3\x28"}', b'{"model":"\xed\xa0\x80"}', b"\xef\xbb\xbf{}", b'{"model":"a","model":"b"}',
    b'{"max_tokens":1e400}', b'{"max_tokens":' + b"9" * 5000 + b"}", b"\x00" * 1000, b'{"model": "x\x00y"}',
],
                         ids=range(12))
def test_hostile_json(server, body):
    for path in (b"/v1/messages", b"/v1/messages/count_tokens", b"/v1/chat/completions", b"/v1/embeddings",
                 b"/api/v1/embed"):
        answer = exchange(server, post(body, path=path))
        assert status(answer) in (400, 422), (path, answer[:300])
        assert "error" in json_of(answer)


def test_nul_and_odd_text_in_prompts(server):
    for text in ("\x00", "a\x00b", "\ufeff", "\u202e", "\U0010ffff", "<|im_end|><|im_start|>system",
                 "{{ 7 * 7 }}{% for %}"):
        body = json.dumps({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": text}]}).encode()
        assert status(exchange(server, post(body))) == 200, repr(text)
        lone = json.dumps({"texts": [text]}).encode()
        assert status(exchange(server, post(lone, path=b"/api/v1/embed"))) == 200, repr(text)
    lone_surrogate = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"\\ud800"}]}'
    assert status(exchange(server, post(lone_surrogate))) in (200, 400)


def test_odd_paths(server):
    for path in (b"/v1/models/%", b"/v1/models/%zz", b"/v1/models/%00", b"/v1/models/..%2f..%2fetc", b"//v1//models",
                 b"/../../etc/passwd", b"/v1/models?limit=%ff", b"/v1/models?limit=1&limit=2&&&=", b"/v1/models/a%2Fb",
                 b"*", b"http://localhost/health"):
        answer = exchange(server, b"GET " + path + b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert status(answer) in (200, 400, 404), path
        assert b"root:" not in answer


# ---- correct, but seldom ----


def test_pipelined_requests_are_answered_in_order(server):
    get = b"GET /v1/models/%s HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with connect(server) as connection:
        connection.sendall(get % b"smollm2-135m-instruct" + get % b"nothing" + get % b"all-minilm-l6-v2")
        data = b""
        while data.count(b"HTTP/1.1 ") < 3 or not data.rstrip().endswith(b"}"):
            piece = connection.recv(65536)
            assert piece, data
            data += piece
    first, second, third = data.split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"200") and b'"smollm2-135m-instruct"' in first
    assert second.startswith(b"404")
    assert third.startswith(b"200") and b'"all-minilm-l6-v2"' in third


def test_keep_alive_over_errors_and_streams(server):
    with connect(server) as connection:
        for body, want in ((BODY, 200), (b"{", 400), (BODY, 200)):
            connection.sendall(b"POST /v1/messages HTTP/1.1\r\n" + HOST + b"content-length: %d\r\n\r\n" % len(body) +
                               body)
            code, _, _, rest = read_one(connection)
            assert code == want and rest == b""
        stream = BODY[:-1] + b', "stream": true}'
        connection.sendall(b"POST /v1/messages HTTP/1.1\r\n" + HOST + b"content-length: %d\r\n\r\n" % len(stream) +
                           stream)
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            piece = connection.recv(65536)
            assert piece, data
            data += piece
        assert b"transfer-encoding: chunked" in data.lower() and b"event: message_stop" in data
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert read_one(connection)[0] == 200


def test_chunked_request_body(server):
    chunks = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(BODY[i:i + 7]), BODY[i:i + 7]) for i in range(0, len(BODY), 7))
    answer = exchange(
        server, b"POST /v1/messages HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n" +
        chunks + b"0\r\ntrailer: x\r\n\r\n")
    assert status(answer) == 200 and json_of(answer)["type"] == "message"


def test_trailers_change_nothing(server):
    """Fields behind a chunked body are no headers: neither a host nor a key may come by them."""
    chunks = b"%x;extension=\"a b\"\r\n" % len(BODY) + BODY + b"\r\n"
    for trailers, status in ((b"host: evil.example\r\nx-api-key: \xff\r\n", b"200"), (b"content-length: 5\r\n", b"400")):
        answer = exchange(server, b"POST /v1/messages HTTP/1.1\r\n" + HOST + b"connection: close\r\n"
                          b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailers + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 " + status), answer[:300]
    endless = b"0\r\n" + b"x: y\r\n" * 100_000
    answer = exchange(server, b"POST /v1/messages HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n" + chunks +
                      endless)
    assert not answer.startswith(b"HTTP/1.1 200"), answer[:300]


def test_upgrades_are_not_taken(server):
    """The answer is an ordinary one: no protocol is switched, and what follows is no frame of another."""
    for upgrade in (b"upgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n",
                    b"upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"):
        head = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n" + upgrade + b"\r\n"
        answer = exchange(server, head + b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200") and answer.count(b"HTTP/1.1 200") == 2, answer[:300]
    preface = exchange(server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert not preface.startswith(b"HTTP/1.1 200"), preface[:300]


def test_expect_100_continue(server):
    with connect(server) as connection:
        connection.sendall(b"POST /v1/messages HTTP/1.1\r\n" + HOST + b"expect: 100-continue\r\nconnection: close\r\n"
                           b"content-length: %d\r\n\r\n" % len(BODY))
        interim = connection.recv(1024)
        assert interim.startswith(b"HTTP/1.1 100")
        connection.sendall(BODY)
        answer = interim.split(b"\r\n\r\n", 1)[1] + read_to_end(connection)
    assert status(answer) == 200


def test_expect_with_a_body_over_the_limit(server):
    answer = exchange(
        server, b"POST /v1/messages HTTP/1.1\r\n" + HOST + b"expect: 100-continue\r\ncontent-length: 500000000\r\n\r\n")
    assert status(answer) == 413


def test_http_1_0(server):
    answer = exchange(server, b"GET /health HTTP/1.0\r\n\r\n")
    assert status(answer) == 200
    whole = exchange(server, post(version=b"HTTP/1.0"))
    assert status(whole) == 200 and b"transfer-encoding" not in whole.split(b"\r\n\r\n")[0].lower()
    stream = exchange(server, post(BODY[:-1] + b', "stream": true}', version=b"HTTP/1.0"))
    assert stream.endswith(b"\n\n") and b"transfer-encoding" not in stream.split(b"\r\n\r\n")[0].lower()


def test_head_has_no_body(server):
    for path in (b"/", b"/health", b"/v1/models", b"/nothing"):
        answer = exchange(server, b"HEAD " + path + b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert answer.endswith(b"\r\n\r\n"), path


def test_compressed_request_bodies_are_refused(server):
    answer = exchange(server, post(headers=b"content-encoding: gzip\r\n"))
    assert status(answer) in (400, 415) and "error" in json_of(answer)


def test_foreign_host_and_origin(server):
    """A web page of some other name must not reach a server on this machine (DNS rebinding)."""
    rebound = exchange(server, b"GET /v1/models HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n")
    assert status(rebound) == 403
    preflight = exchange(
        server, b"OPTIONS /v1/messages HTTP/1.1\r\nhost: localhost\r\norigin: https://evil.example\r\n"
        b"access-control-request-method: POST\r\nconnection: close\r\n\r\n")
    assert b"access-control-allow-origin" not in preflight.lower()


def test_cors_of_an_allowed_origin(start_server):
    allowed = start_server("--cors-origin", "https://app.example")
    headers = {
        "origin": "https://app.example", "access-control-request-method": "POST",
        "access-control-request-headers": "x-api-key, x-custom"
    }
    preflight = requests.options(allowed.url + "/v1/messages", headers=headers, timeout=60)
    assert preflight.status_code in (200, 204)
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    assert "x-custom" in preflight.headers["access-control-allow-headers"]
    answer = requests.get(allowed.url + "/v1/models", headers={"origin": "https://app.example"}, timeout=60)
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    other = requests.get(allowed.url + "/v1/models", headers={"origin": "https://other.example"}, timeout=60)
    assert "access-control-allow-origin" not in other.headers


def test_a_real_answer_at_the_end(server):
    server.assert_healthy()
